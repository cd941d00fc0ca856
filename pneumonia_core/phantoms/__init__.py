"""Synthetic chest X-rays: drawn by a program, never taken from a patient, for the demo and the tests.

A room by itself: nothing of the system but its findings is in it, and only the demo and the tests use it. The
anatomy is long because the pictures must not be too easy. A network must need the lungs to tell the classes
apart, and not the exposure, the size or a single bright spot; so every part of the chest varies from child to
child.

May import: errors, findings.
"""

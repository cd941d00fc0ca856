"""Synthetic chest X-rays for the demo and the tests.

May import: errors, findings.
"""

"""Ray up and down, the resources of its cluster, its errors in one line.

May import: console, pneumonia_core.
"""

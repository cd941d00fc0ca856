"""A training on Ray Train.

May import: ray_runtime, console, pneumonia_core.
"""

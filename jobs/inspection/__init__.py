"""A survey of an archive or data set on Ray Data.

May import: ray_runtime, console, pneumonia_core.
"""

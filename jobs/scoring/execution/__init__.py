"""The one execution of a run: a queue of chunks, the Ray Data graph over it, and the actors.

May import: ray_runtime, console, pneumonia_core.
"""

"""A scoring run on Ray: list, plan, score, commit.

May import: ray_runtime, console, pneumonia_core.
"""

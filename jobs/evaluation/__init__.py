"""A labelled set scored through the scoring run, and its report.

May import: jobs.scoring, ray_runtime, console, pneumonia_core.
"""

"""A bundle fitted to local images, which a scoring run scores with it first.

May import: jobs.evaluation, scoring, ray_runtime, console, pneumonia_core.
"""

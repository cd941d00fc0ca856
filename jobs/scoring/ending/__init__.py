"""The end of a run: its parts merged, its gates, its commit or acceptance, and what is said of it.

May import: jobs.scoring.context, ray_runtime, console, pneumonia_core.
"""

"""Adding an engine to a bundle, calibrated on labelled images.

May import: jobs.console, jobs.training, jobs.evaluation.
"""

"""The whole loop on synthetic X-rays: train, evaluate, score.

May import: jobs.evaluation, scoring, training, ray_runtime, console, pneumonia_core.
"""

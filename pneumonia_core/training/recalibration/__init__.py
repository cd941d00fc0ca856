"""A bundle fitted to local images: the same network with other probabilities, findings and domain.

May import: training.release, networks, bundles, evaluation.
"""

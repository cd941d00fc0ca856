"""The recipe, augmentation, the training step, checkpoints, and the release as a bundle.

May import: networks, bundles, evaluation, datasets, reports, and what those may import.
"""

"""A model on disk: written, verified, opened, run by an engine. Opening one imports no Keras and no TensorFlow.

May import: errors, findings, domain, system, storage, imaging.
"""

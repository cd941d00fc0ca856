"""A model on disk: written, verified, opened, run by an engine.

Opening a bundle imports neither Keras nor TensorFlow.

May import: errors, findings, calibration, domain, system, storage, imaging.
"""

"""A model on disk: written, verified, opened, run by an engine.

May import: errors, findings, domain, system, storage, imaging.
"""

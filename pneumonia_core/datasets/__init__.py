"""Labelled data sets, and audits of any set of images.

May import: errors, findings, domain, system, storage, imaging, archives.
"""

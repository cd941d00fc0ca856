"""Tars and zips, read in place: one file per format, and `members`, which chooses between them.

May import: errors, system, storage, imaging, and the entries of archives.
"""

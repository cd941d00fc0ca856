"""Locks of folders: one process works there at a time, and others can tell whether it lives.

May import: the rest of storage.
"""

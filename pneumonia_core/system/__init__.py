"""This machine and its processes: child processes, scratch folders, versions, failpoints.

May import: errors.
"""

"""Where bytes are: locations, whole files, byte ranges and locks, on a disk or in a bucket.

May import: errors, system.
"""

"""How files are packed: found by their first bytes, and inflated as streams.

May import: errors, system, storage, imaging, and the entries of archives.
"""

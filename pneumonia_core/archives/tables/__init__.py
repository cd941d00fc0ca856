"""Tables that name images: their files and rows, and which image a row means.

May import: errors, system, storage, imaging, and the entries and members of archives.
"""

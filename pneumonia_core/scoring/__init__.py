"""One chunk of images: read ahead, decode, score, rows.

May import: runs, bundles, and what those may import.
"""

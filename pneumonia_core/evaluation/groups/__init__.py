"""Parts of the images: how they are made, the measures within each, and how far they differ.

May import: evaluation.
"""

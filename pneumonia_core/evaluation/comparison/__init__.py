"""Two models on the same images: which is better, or that the images cannot tell.

May import: evaluation.
"""

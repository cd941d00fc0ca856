"""How fast a bundle's engines are on the machines that score: measured there, kept beside the results.

May import: the modules of bundles, and what those may import.
"""

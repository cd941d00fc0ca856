"""HTML pages and the model card.

May import: archives, evaluation, datasets, findings, errors, system.
"""

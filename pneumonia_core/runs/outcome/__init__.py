"""What came of a run: its counts, where its time went, and what limits it.

May import: nothing of the rest of runs.
"""

"""What a run keeps for later runs: its decoded squares.

May import the console and `pneumonia_core`.
"""

"""Runs and their gates: the shares that the gates look at, and the runs that they have held back.

May import: the rest of runs.
"""

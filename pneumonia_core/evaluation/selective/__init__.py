"""Selective answers: how accurate the findings are that a model is surest of.

May import: evaluation.
"""

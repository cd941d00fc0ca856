"""How good scores are, with intervals; calibration and robustness.

May import: errors, findings, domain, system, storage, imaging.
"""

"""How good scores are, with intervals; calibration and robustness.

May import: errors, findings, calibration, domain, system, storage, imaging.
"""

"""ResNets: building them, pretrained weights, the graph that scoring exports.

May import: errors, findings, calibration, domain, system, storage, imaging.
"""

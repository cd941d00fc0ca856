"""DICOM: the header, the stored pixels, the grey picture, and whether it is a chest radiograph.

May import: errors, system, storage, and the contract and formats of imaging.
"""

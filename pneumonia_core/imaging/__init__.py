"""The image contract: bytes of any supported format become one grey uint8 square.

May import: errors, system, storage.
"""

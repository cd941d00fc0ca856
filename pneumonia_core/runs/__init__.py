"""The folder of one scoring run: record, inventory, parts, crash journal.

May import: results, archives, and what those may import.
"""

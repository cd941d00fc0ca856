"""The Delta table of scores: its schema, commits, the latest rows, maintenance.

May import: errors, findings, domain, system, storage.
"""

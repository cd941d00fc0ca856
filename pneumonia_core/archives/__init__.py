"""What an archive holds: listing its images, and reading one of them.

May import: errors, system, storage, imaging.
"""

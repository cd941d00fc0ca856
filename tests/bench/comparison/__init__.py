"""The comparison of `pneumonia score` with what a user would write instead; `compare.py` is the command."""

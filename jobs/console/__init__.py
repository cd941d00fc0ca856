"""What a person and a program see: options, progress, one-line errors, the JSON result.

May import: pneumonia_core.
"""

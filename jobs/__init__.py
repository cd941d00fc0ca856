"""The Ray jobs and the `pneumonia` command."""

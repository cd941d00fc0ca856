"""Where the jobs run: images and cluster files, and the commands `submit` and `jobs` of a Ray cluster.

`jobs.cli` registers the two commands by their dotted path.
May import: jobs.cli, jobs.console, pneumonia_core.
"""

"""The job `bench`: the ceilings of a cluster, a real scoring run, and what limits it.

May import: scoring, ray_runtime, console; the core.
"""

"""What nodes of the cluster compute: the rates of a bundle's engines, and of actors that share a GPU.

May import: the modules of execution that these measure with, jobs.ray_runtime, and pneumonia_core.
"""

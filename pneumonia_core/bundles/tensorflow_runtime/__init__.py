"""The TensorFlow engine, and its network with the trunk in float16 for GPUs."""

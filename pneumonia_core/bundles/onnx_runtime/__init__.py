"""The network in ONNX: written, and run by ONNX Runtime on CPUs and GPUs.

Only writing it imports Keras and TensorFlow; running it needs neither.

May import: errors, and the engines of bundles.
"""

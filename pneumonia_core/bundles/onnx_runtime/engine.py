"""The ONNX Runtime engine, for CPUs and GPUs."""

import os
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime

from pneumonia_core.bundles.engines import BATCH_SIZE, ENGINE_FILES, ONNX_ENGINE, Scores, score_in_batches
from pneumonia_core.bundles.onnx_runtime.providers import CPU, engine_cache, gpu_providers, load_providers
from pneumonia_core.errors import PneumoniaError, Remedy

# The names of the graph's input and of its first dimension.
IMAGE: Final = "image"
BATCH: Final = "batch"
_ERRORS_ONLY: Final = 3


class OnnxruntimeEngine:
    """ONNX Runtime on CPU threads in float32, or on a GPU in float32 or float16.

    On the CPU float16 is what a GPU would compute, for measuring parity: the CPU computes it in float32 and
    rounds. That needs the package onnx. Raises PneumoniaError where `gpu` is set and no GPU is used.
    """

    name = ONNX_ENGINE

    def __init__(
        self, bundle: Path, precision: str, threads: int, gpu: bool = False, batch_size: int = BATCH_SIZE
    ) -> None:
        self.precision = precision
        self._batch_size = batch_size
        model = bundle / model_file(precision)
        options = _options(threads, batch_size)
        if gpu:
            self._session = _open_on_gpu(model, precision, options)
        elif precision == "float16":
            # Not needed where images are scored.
            from pneumonia_core.bundles.onnx_runtime.float16 import read_rounded

            self._session = onnxruntime.InferenceSession(read_rounded(model), options, [CPU])
        else:
            self._session = onnxruntime.InferenceSession(model, options, [CPU])
        self._outputs = [output.name for output in self._session.get_outputs()]

    def __call__(self, images: np.ndarray) -> Scores:
        return score_in_batches(images, self._score_batch, self._batch_size)

    def _score_batch(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(self._outputs, self._session.run(self._outputs, {IMAGE: batch}), strict=True))


def model_file(precision: str) -> str:
    """The path in a bundle of the network in this precision."""
    suffix = "" if precision == "float32" else f"_{precision}"
    return f"{ENGINE_FILES[ONNX_ENGINE]}model{suffix}.onnx"


def _options(threads: int, batch_size: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.add_free_dimension_override_by_name(BATCH, batch_size)
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that wait by spinning would take the cores of those that decode.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = _ERRORS_ONLY
    return options


def _open_on_gpu(
    model: Path, precision: str, options: onnxruntime.SessionOptions
) -> onnxruntime.InferenceSession:
    # The libraries look at it when they are loaded. TensorRT has no other way to multiply float32 exactly.
    os.environ["NVIDIA_TF32_OVERRIDE"] = "0"
    providers = gpu_providers(precision, load_providers(), engine_cache(model))
    if providers:
        session = onnxruntime.InferenceSession(model, options, providers)
        # Where a library is missing it falls back to the CPU.
        if session.get_providers()[0] != CPU:
            return session
    raise PneumoniaError("ONNX Runtime uses no GPU on this node.", Remedy.INSTALL_ONNX_GPU)

"""The ONNX Runtime engine."""

from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime

from pneumonia_core.bundles.engines import BATCH_SIZE, ENGINE_FILES, ONNX_ENGINE, Scores, score_in_batches

# The path of the network in a bundle.
MODEL_FILE: Final = f"{ENGINE_FILES[ONNX_ENGINE]}model.onnx"
# The names of the graph's input and of its first dimension.
IMAGE: Final = "image"
BATCH: Final = "batch"
_ERRORS_ONLY: Final = 3


class OnnxruntimeEngine:
    """ONNX Runtime on CPU threads, in float32."""

    name = ONNX_ENGINE
    precision = "float32"

    def __init__(self, bundle: Path, threads: int, batch_size: int = BATCH_SIZE) -> None:
        self._batch_size = batch_size
        options = onnxruntime.SessionOptions()
        options.add_free_dimension_override_by_name(BATCH, batch_size)
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Threads that wait by spinning would take the cores of those that decode.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = _ERRORS_ONLY
        self._session = onnxruntime.InferenceSession(
            bundle / MODEL_FILE, options, providers=["CPUExecutionProvider"]
        )
        self._outputs = [output.name for output in self._session.get_outputs()]

    def __call__(self, images: np.ndarray) -> Scores:
        return score_in_batches(images, self._score_batch, self._batch_size)

    def _score_batch(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(self._outputs, self._session.run(self._outputs, {IMAGE: batch}), strict=True))

"""The OpenVINO engines, for CPUs."""

from pathlib import Path
from typing import Final

import numpy as np
import openvino

from pneumonia_core.bundles.engines import BATCH_SIZE, INT8, Scores, score_in_batches

# For what is computed while an engine is made.
EXACT: Final = {"INFERENCE_PRECISION_HINT": "f32"}
# What is not quantised in a quantised network computes in float32.
_HINTS: Final = {"float32": "f32", "bfloat16": "bf16", INT8: "f32"}


class OpenvinoEngine:
    """OpenVINO on CPU threads, one stream: two streams doubled the latency and gained no speed.

    `precision` is the one in which it really computes: a CPU may lack the one that was asked for.
    """

    def __init__(
        self,
        model: Path,
        name: str,
        precision: str,
        image_size: int,
        threads: int,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        self.name = name
        self._batch_size = batch_size
        core = openvino.Core()
        network = core.read_model(model)
        network.reshape([batch_size, image_size, image_size])
        settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            # The pinned threads of two engines would share the same cores.
            "ENABLE_CPU_PINNING": False,
        }
        self._compiled = core.compile_model(network, "CPU", settings)
        actual = self._compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        known = {hint: precision for precision, hint in _HINTS.items() if precision != INT8}
        computed = known.get(actual, actual)
        self.precision = INT8 if precision == INT8 and computed == "float32" else computed
        self._has_domain = any("domain" in port.get_names() for port in self._compiled.outputs)

    def __call__(self, images: np.ndarray) -> Scores:
        return score_in_batches(images, self._score_batch, self._batch_size)

    def _score_batch(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        result = self._compiled(batch)
        names = ["probabilities", "domain"] if self._has_domain else ["probabilities"]
        return {name: result[name] for name in names}

"""The OpenVINO engine, for CPUs."""

from pathlib import Path

import numpy as np
import openvino

from pneumonia_core.bundles.engines import BATCH_SIZE, Scores, score_in_batches


class OpenvinoEngine:
    """OpenVINO on CPU threads, one stream: two streams doubled the latency and gained no speed."""

    name = "openvino"

    def __init__(self, model: Path, precision: str, image_size: int, threads: int) -> None:
        self.precision = precision
        core = openvino.Core()
        network = core.read_model(model)
        network.reshape([BATCH_SIZE, image_size, image_size])
        settings = {
            "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            # The pinned threads of two engines would share the same cores.
            "ENABLE_CPU_PINNING": False,
        }
        self._compiled = core.compile_model(network, "CPU", settings)
        self._has_domain = any("domain" in port.get_names() for port in self._compiled.outputs)

    def __call__(self, images: np.ndarray) -> Scores:
        return score_in_batches(images, self._score_batch)

    def _score_batch(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        result = self._compiled(batch)
        names = ["probabilities", "domain"] if self._has_domain else ["probabilities"]
        return {name: result[name] for name in names}

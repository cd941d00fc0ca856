"""The exported network, run fast: TensorFlow or OpenVINO, float32 or bfloat16."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

ENGINES: Final = ("openvino", "tensorflow")
PRECISIONS: Final = ("auto", "float32")
BATCH_SIZE: Final = 32
MAX_AUROC_DIFFERENCE: Final = 0.002
MIN_FINDINGS_AGREEMENT: Final = 0.995
# Of images near the threshold alone, an engine's rounding decides.
MIN_DOMAIN_AGREEMENT: Final = 0.98


@dataclass(frozen=True)
class Scores:
    """What an engine gives for B images: probabilities float32 [B, 3] in the order of CLASSES, and the
    domain score float32 [B], None where the bundle has none."""

    probabilities: np.ndarray
    domain: np.ndarray | None


class Engine(Protocol):
    """A loaded network: uint8 [B, H, W] in, Scores out, for any B."""

    name: str
    precision: str

    def __call__(self, images: np.ndarray) -> Scores: ...


def open_exported(folder: Path, name: str, precision: str, image_size: int, threads: int) -> Engine:
    """The engine over the exported files in a bundle's folder, at that precision."""
    if name == "tensorflow":
        return TensorflowEngine(folder / "saved_model", precision, image_size, threads)
    return OpenvinoEngine(folder / "openvino" / "model.xml", precision, image_size, threads)


class OpenvinoEngine:
    """OpenVINO on CPU threads, one stream: two streams were no faster and doubled the latency."""

    name = "openvino"

    def __init__(self, model: Path, precision: str, image_size: int, threads: int) -> None:
        import openvino

        self.precision = precision
        core = openvino.Core()
        network = core.read_model(model)
        network.reshape([BATCH_SIZE, image_size, image_size])
        settings = {
            "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            # Pinned threads of two engines would sit on the same cores.
            "ENABLE_CPU_PINNING": False,
        }
        self._compiled = core.compile_model(network, "CPU", settings)
        self._has_domain = any("domain" in port.get_names() for port in self._compiled.outputs)

    def __call__(self, images: np.ndarray) -> Scores:
        return _in_fixed_batches(images, self._run)

    def _run(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        result = self._compiled(batch)
        names = ["probabilities", "domain"] if self._has_domain else ["probabilities"]
        return {name: result[name] for name in names}


class TensorflowEngine:
    """The frozen TensorFlow graph on CPU threads or a GPU."""

    name = "tensorflow"

    def __init__(self, saved_model: Path, precision: str, image_size: int, threads: int) -> None:
        import tensorflow as tf

        self.precision = precision
        _configure_tensorflow(tf, threads)
        # Grappler's mixed-precision rewrites are switched for the whole process.
        tf.config.optimizer.set_experimental_options(
            {
                "auto_mixed_precision_onednn_bfloat16": precision == "bfloat16",
                "auto_mixed_precision": precision == "float16",
            }
        )
        self._tf = tf
        self._function = _freeze(tf, saved_model, image_size)

    def __call__(self, images: np.ndarray) -> Scores:
        return _in_fixed_batches(images, self._run)

    def _run(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        outputs = self._function(self._tf.constant(batch))
        return {name: value.numpy() for name, value in outputs.items()}


def _configure_tensorflow(tf: Any, threads: int) -> None:
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        for gpu in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(gpu, True)
    except RuntimeError:
        # TensorFlow has begun in this process: its threads stay as they are, scores do not depend on them.
        return


def _freeze(tf: Any, saved_model: Path, image_size: int) -> Callable[[Any], dict[str, Any]]:
    """The serving signature with its variables as constants and the batch shape fixed: twice as fast."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    loaded = tf.saved_model.load(str(saved_model))
    signature = loaded.signatures["serving_default"]
    wrapped = tf.function(lambda image: signature(image=image))
    concrete = wrapped.get_concrete_function(tf.TensorSpec((BATCH_SIZE, image_size, image_size), tf.uint8))
    frozen = convert_variables_to_constants_v2(concrete)
    names = sorted(signature.structured_outputs)

    def run(batch: Any) -> dict[str, Any]:
        # A frozen function gives its outputs flat, in the order in which tf.nest sorts the names.
        return dict(zip(names, frozen(batch), strict=True))

    return run


def _in_fixed_batches(images: np.ndarray, run: Callable[[np.ndarray], dict[str, np.ndarray]]) -> Scores:
    """Scores of any number of images, computed in batches of one shape: a score never depends on how many
    other images came with it."""
    probabilities: list[np.ndarray] = []
    domain: list[np.ndarray] = []
    for start in range(0, len(images), BATCH_SIZE):
        batch = images[start : start + BATCH_SIZE]
        count = len(batch)
        if count < BATCH_SIZE:
            padding = np.zeros((BATCH_SIZE - count, *batch.shape[1:]), np.uint8)
            batch = np.concatenate([batch, padding])
        outputs = run(np.ascontiguousarray(batch))
        probabilities.append(np.array(outputs["probabilities"][:count], np.float32))
        if "domain" in outputs:
            domain.append(np.array(outputs["domain"][:count], np.float32).reshape(count))
    if not probabilities:
        return Scores(np.zeros((0, 3), np.float32), None)
    return Scores(np.concatenate(probabilities), np.concatenate(domain) if domain else None)


@dataclass(frozen=True)
class EngineReport:
    """An exported engine, and how it compared with the float32 Keras model on held-back images."""

    precision: str
    images_per_s: float
    auroc_difference: float
    findings_agreement: float
    largest_difference: float
    domain_agreement: float | None = None

    @property
    def parity_passed(self) -> bool:
        return (
            self.auroc_difference <= MAX_AUROC_DIFFERENCE
            and self.findings_agreement >= MIN_FINDINGS_AGREEMENT
            and (self.domain_agreement is None or self.domain_agreement >= MIN_DOMAIN_AGREEMENT)
        )

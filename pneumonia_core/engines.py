"""The exported network, run fast: TensorFlow or OpenVINO, float32 or bfloat16."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from pneumonia_core.errors import InvalidInput
from pneumonia_core.processors import cpu_has_bfloat16

if TYPE_CHECKING:
    from pneumonia_core.bundle import Bundle

ENGINES: Final = ("openvino", "tensorflow")
PRECISIONS: Final = ("auto", "float32")
BATCH_SIZE: Final = 32


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


def load_engine(
    bundle: "Bundle",
    name: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    gpu: bool = False,
) -> Engine:
    """The bundle's engine of that name, ready to score.

    `auto` is chosen by `choose_engine`.
    Precision `auto` is what parity was measured with, where this machine has it. `threads` bounds the
    CPU threads. Raises InvalidInput when the bundle lacks the engine.
    """
    name = choose_engine(bundle, name, gpu)
    chosen = bundle.engines[name].precision if precision == "auto" else precision
    if gpu and name == "tensorflow" and precision == "auto":
        chosen = "float16"
    if chosen == "bfloat16" and not cpu_has_bfloat16():
        chosen = "float32"
    return open_exported(bundle.path, name, chosen, bundle.image_size, threads or os.cpu_count() or 1)


def choose_engine(bundle: "Bundle", name: str = "auto", gpu: bool = False) -> str:
    """The name of the engine that `name` means for this bundle.

    `auto` is, of the engines whose parity passed, TensorFlow where `gpu` is true, which alone computes there, otherwise
    or without it the fastest. Raises InvalidInput when the bundle lacks the engine or none passed.
    """
    if name != "auto":
        if name not in bundle.engines:
            raise InvalidInput(
                f"the bundle {bundle.path} has no engine {name!r}; it has {', '.join(sorted(bundle.engines))}."
            )
        return name
    passed = {n: facts for n, facts in bundle.engines.items() if facts.parity_passed}
    if not passed:
        raise InvalidInput(
            f"no engine of the bundle {bundle.path} agreed with its float32 model when it was written. "
            "Name one with --engine to use it all the same."
        )
    if gpu and "tensorflow" in passed:
        return "tensorflow"
    return max(passed, key=lambda n: passed[n].images_per_s)


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

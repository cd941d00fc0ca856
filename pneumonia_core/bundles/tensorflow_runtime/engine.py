"""The TensorFlow engine, for GPUs and CPUs, and TensorFlow's switches that hold for a whole process."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from pneumonia_core.bundles.engines import BATCH_SIZE, Scores, score_in_batches

# From a batch of images to the outputs by name.
Scoring = Callable[[tf.Tensor], dict[str, tf.Tensor]]


class TensorflowEngine:
    """The frozen TensorFlow graph on CPU threads or a GPU; `compiled` by XLA where XLA can compile here.

    It computes in bfloat16 only in a process that `set_graph_precision` has prepared for it.
    """

    name = "tensorflow"

    def __init__(
        self,
        saved_model: Path,
        precision: str,
        image_size: int,
        batch_size: int = BATCH_SIZE,
        compiled: bool = False,
    ) -> None:
        self.precision = precision
        self._batch_size = batch_size
        plain = _freeze(saved_model, image_size, batch_size)
        fast = _compiled_for((batch_size, image_size, image_size), plain) if compiled else None
        self.compiled = fast is not None
        self._function = fast or plain

    def __call__(self, images: np.ndarray) -> Scores:
        return score_in_batches(images, self._score_batch, self._batch_size)

    def _score_batch(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        outputs = self._function(tf.constant(batch))
        return {name: value.numpy() for name, value in outputs.items()}


def set_graph_precision(precision: str) -> None:
    """Let TensorFlow rewrite all graphs of this process where `precision` is bfloat16, else leave them.

    Grappler's mixed-precision rewrite is an option of the process. So a process computes with one TensorFlow
    engine at a time, and one that computes something else afterwards sets float32 again.
    """
    tf.config.optimizer.set_experimental_options(
        {"auto_mixed_precision_onednn_bfloat16": precision == "bfloat16"}
    )
    # GPUs since Ampere would multiply float32 with a mantissa of ten bits.
    tf.config.experimental.enable_tensor_float_32_execution(False)


def set_devices(threads: int, gpu: bool) -> None:
    """Bound the CPU threads of TensorFlow in this process; without `gpu` it uses no GPU.

    With `gpu` it allocates GPU memory as needed.
    """
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        if not gpu:
            tf.config.set_visible_devices([], "GPU")
        for device in tf.config.get_visible_devices("GPU"):
            tf.config.experimental.set_memory_growth(device, True)
    except RuntimeError:
        # TensorFlow has started in this process and keeps its threads and devices.
        return


def hide_gpus() -> bool:
    """Let TensorFlow compute on CPUs alone in this process; false where it has already started on GPUs.

    On a GPU, what a bundle is calibrated and compared by would be in TF32, and all its memory taken.
    """
    try:
        tf.config.set_visible_devices([], "GPU")
    except RuntimeError:
        return False
    return True


def _compiled_for(shape: tuple[int, int, int], function: Scoring) -> Scoring | None:
    """The function compiled by XLA for batches of this shape; None where XLA cannot compile here.

    For a GPU it needs a compiler and a library of CUDA, which an installation may lack.
    """
    compiled = tf.function(function, jit_compile=True, autograph=False)
    try:
        compiled(tf.zeros(shape, tf.uint8))
    except tf.errors.OpError:
        return None
    return compiled


def _freeze(saved_model: Path, image_size: int, batch_size: int) -> Scoring:
    """The serving signature with variables as constants and a fixed batch shape: twice as fast."""
    loaded = tf.saved_model.load(str(saved_model))
    signature = loaded.signatures["serving_default"]
    wrapped = tf.function(lambda image: signature(image=image))
    concrete = wrapped.get_concrete_function(tf.TensorSpec((batch_size, image_size, image_size), tf.uint8))
    frozen = convert_variables_to_constants_v2(concrete)
    names = sorted(signature.structured_outputs)

    def run(batch: tf.Tensor) -> dict[str, tf.Tensor]:
        # A frozen function returns a flat list, in the order in which tf.nest sorts the names.
        return dict(zip(names, frozen(batch), strict=True))

    return run

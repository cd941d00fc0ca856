"""What a machine can compute with."""

import ctypes
import importlib.util
import platform
from dataclasses import dataclass
from typing import Final

from pneumonia_core.bundles.engines import GPU_ENGINES, INT8, ONNX_ENGINE
from pneumonia_core.bundles.onnx_runtime.gpus import driver_cards, onnxruntime_gpus
from pneumonia_core.bundles.onnx_runtime.installed import has_onnxruntime
from pneumonia_core.system.environment import (
    cpu_has_bfloat16,
    cpu_has_bfloat16_tiles,
    cpu_multiplies_int8,
    gpu_multiplies_float16,
    processor_model,
)

# The driver's library. Without it no framework sees an NVIDIA GPU.
_CUDA_DRIVER: Final = "libcuda.so.1"


@dataclass(frozen=True)
class Capabilities:
    """What engines can use on a machine.

    `bfloat16` and `int8` say whether they multiply these on its CPU, `bfloat16_tiles` whether it has a unit
    for bfloat16 that is surely faster than float32. `gpus` are the compute capabilities (major, minor) of the
    GPUs that the engine sees that was asked; `gpu_engines` may see them, too. `onnxruntime` says whether that
    is installed. `processor` is the model of the CPU, `card` that of the GPUs.
    """

    bfloat16: bool = False
    gpus: tuple[tuple[int, int], ...] = ()
    int8: bool = False
    onnxruntime: bool = False
    processor: str = ""
    bfloat16_tiles: bool = False
    card: str = ""
    gpu_engines: tuple[str, ...] = tuple(GPU_ENGINES)

    def can_compute(self, precision: str, on_gpu: bool) -> bool:
        """Whether an engine computes in this precision here, on the GPUs or on the CPU."""
        if on_gpu:
            fast = precision == "float16" and all(gpu_multiplies_float16(gpu) for gpu in self.gpus)
            return bool(self.gpus) and (fast or precision == "float32")
        return precision == "float32" or {"bfloat16": self.bfloat16, INT8: self.int8}.get(precision, False)


def measure_capabilities(look_for_gpus: bool, engine: str = "tensorflow") -> Capabilities:
    """The capabilities of this machine. With `look_for_gpus` the engine says which GPUs it sees.

    With `auto` that is TensorFlow, or ONNX Runtime where TensorFlow sees none or is not installed. It may
    import TensorFlow, which takes seconds.
    """
    gpus, gpu_engines = _gpus_of(engine) if look_for_gpus else ((), tuple(GPU_ENGINES))
    # On Arm the engines do not multiply bfloat16, whether or not the processor could, and int8 otherwise.
    x86 = platform.machine() == "x86_64"
    return Capabilities(
        bfloat16=x86 and cpu_has_bfloat16(),
        gpus=gpus,
        int8=x86 and cpu_multiplies_int8(),
        onnxruntime=has_onnxruntime(),
        processor=processor_model(),
        bfloat16_tiles=x86 and cpu_has_bfloat16_tiles(),
        card=_card() if gpus else "",
        gpu_engines=gpu_engines,
    )


def _gpus_of(engine: str) -> tuple[tuple[tuple[int, int], ...], tuple[str, ...]]:
    """The GPUs, and the engines that may see them."""
    try:
        driver = ctypes.CDLL(_CUDA_DRIVER)
    except OSError:
        return (), tuple(GPU_ENGINES)
    found = _tensorflow_gpus() if engine != ONNX_ENGINE else ()
    # Where TensorFlow sees GPUs, ONNX Runtime is asked when it is measured: in one process, libraries of both
    # might clash.
    if found or engine not in ("auto", ONNX_ENGINE):
        return found, tuple(GPU_ENGINES)
    return onnxruntime_gpus(driver), (ONNX_ENGINE,)


def _card() -> str:
    """The model of the GPUs; all models of a machine that has several."""
    return ", ".join(sorted(set(driver_cards(ctypes.CDLL(_CUDA_DRIVER)))))


def _tensorflow_gpus() -> tuple[tuple[int, int], ...]:
    if importlib.util.find_spec("tensorflow") is None:
        return ()
    # Most machines have no GPU, and do without the import.
    import tensorflow as tf

    details = map(tf.config.experimental.get_device_details, tf.config.list_physical_devices("GPU"))
    return tuple(each.get("compute_capability", (0, 0)) for each in details)

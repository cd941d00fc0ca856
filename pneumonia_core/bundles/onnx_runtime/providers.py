"""The execution providers of ONNX Runtime for GPUs, their libraries and their options."""

import ctypes
import hashlib
import importlib
import importlib.util
import os
from collections.abc import Collection
from pathlib import Path
from typing import Final

import onnxruntime

CPU: Final = "CPUExecutionProvider"
CUDA: Final = "CUDAExecutionProvider"
TENSORRT: Final = "TensorrtExecutionProvider"
_TENSORRT_LIBRARY: Final = "libnvinfer.so.10"
Provider = tuple[str, dict[str, str]]


def gpu_providers(precision: str, usable: Collection[str], cache: Path) -> list[Provider]:
    """The `usable` providers for a GPU in this precision, with their options, the preferred one first.

    TensorRT computes in float16 alone: it takes minutes to build an engine, which it keeps in `cache`. What
    it cannot compute, CUDA does. None where this machine has neither.
    """
    cuda = {
        "use_tf32": "0",
        # Algorithms that are timed at the start would differ from one node to another.
        "cudnn_conv_algo_search": "HEURISTIC",
        # Several actors share a GPU, so its memory is not taken in powers of two.
        "arena_extend_strategy": "kSameAsRequested",
    }
    # Without `trt_fp16_enable` TensorRT keeps to the types in the graph: what is sensitive stays in float32.
    tensorrt = {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(cache),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(cache),
    }
    wanted = [(TENSORRT, tensorrt)] if precision == "float16" else []
    return [provider for provider in (*wanted, (CUDA, cuda)) if provider[0] in usable]


def load_providers() -> list[str]:
    """The providers that this machine may have, whose libraries are loaded where they are Python packages.

    ONNX Runtime names TensorRT wherever it names CUDA, so its library is looked for.
    """
    names: list[str] = onnxruntime.get_available_providers()
    if CUDA in names:
        # The dynamic linker does not look into Python packages.
        onnxruntime.preload_dlls(directory="")
    if TENSORRT in names and not _load_tensorrt():
        names.remove(TENSORRT)
    return names


def engine_cache(model: Path) -> Path:
    """The user's own folder for the engines that TensorRT builds of this model; it is made if need be."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    with model.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    folder = base / "pneumonia-scoring" / "tensorrt" / digest[:16]
    # TensorRT runs what it reads there.
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def _load_tensorrt() -> bool:
    if importlib.util.find_spec("tensorrt") is not None:
        importlib.import_module("tensorrt")
    try:
        ctypes.CDLL(_TENSORRT_LIBRARY)
    except OSError:
        return False
    return True

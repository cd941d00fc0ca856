"""What the processor of this machine can do."""

import importlib.metadata
import platform
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Final

from pneumonia_core import __version__

# The first generations of GPUs, by compute capability, whose tensor cores multiply float16, and bfloat16 as well.
_VOLTA: Final = 7
_AMPERE: Final = 8


@cache
def cpu_has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware (AVX512-BF16, AMX or the Arm extension)."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    flags = set(text.split())
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


def cpu_training_precision() -> str:
    """The Keras dtype policy that trains fastest on this CPU."""
    return "mixed_bfloat16" if cpu_has_bfloat16() else "float32"


def gpu_training_precision(capabilities: Iterable[tuple[int, int]]) -> str:
    """The Keras dtype policy that trains fastest on GPUs of these compute capabilities (major, minor); bfloat16 rather
    than float16, whose range needs the loss to be scaled."""
    generation = min(major for major, _ in capabilities)
    if generation >= _AMPERE:
        return "mixed_bfloat16"
    return "mixed_float16" if generation >= _VOLTA else "float32"


_RECORDED: Final = ("ray", "keras", "tensorflow", "openvino", "deltalake", "pyarrow", "pillow", "numpy")


def installed_versions() -> dict[str, str]:
    """Versions of this project, of Python and of the libraries that can change a result."""
    versions = {"pneumonia-scoring": __version__, "python": platform.python_version()}
    for name in _RECORDED:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            # An image for scoring alone may lack a library of training.
            continue
    return versions

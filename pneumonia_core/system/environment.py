"""What the hardware of this machine can do, and which versions are installed.

Some libraries can only be configured for the whole process. pneumonia_core does so in these places, and
nowhere else:

- `imaging.decode`: Pillow's MAX_IMAGE_PIXELS is off, because `imaging.contract` has the project's own limit;
- `imaging.dicom.header`: pydicom's warnings are off, because they contain values of the file's tags;
- `bundles.tensorflow_runtime.engine`: TensorFlow's graph optimiser has one precision for all graphs of a
  process;
- `system.child_server`: a child process limits its own memory, CPU time and core dumps;
- `runs.crash_journal`: a process that handles chunks ends at once when it crashes (`system.fatal_signals`).

`jobs.ray_runtime.session` has those of Ray.
"""

import importlib.metadata
import platform
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Final

from pneumonia_core import __version__

# GPU generations, by major compute capability, whose tensor cores first multiply float16 and bfloat16.
_VOLTA: Final = 7
_AMPERE: Final = 8


@cache
def cpu_has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware (AVX512-BF16, AMX or the Arm extension)."""
    return bool(_cpu_words() & {"avx512_bf16", "amx_bf16", "bf16"})


@cache
def cpu_has_bfloat16_tiles() -> bool:
    """Whether this CPU multiplies bfloat16 in tiles (AMX), at a multiple of its speed in float32."""
    return "amx_bf16" in _cpu_words()


@cache
def cpu_multiplies_int8() -> bool:
    """Whether this CPU adds products of int8 up in 32 bits (VNNI or AMX).

    x86 processors without these add them up in 16 bits, where large sums are cut off.
    """
    return bool(_cpu_words() & {"avx512_vnni", "avx_vnni", "amx_int8"})


@cache
def processor_model() -> str:
    """The model of this machine's processor, such as 'Intel(R) Xeon(R) Platinum 8481C'."""
    facts = dict(line.partition(":")[::2] for line in reversed(_cpu_facts().splitlines()))
    named = {name.strip(): value.strip() for name, value in facts.items()}
    # Arm's processors have numbers instead of a name.
    numbers = " ".join(named.get(key, "") for key in ("CPU implementer", "CPU part", "CPU variant")).strip()
    return named.get("model name") or f"{platform.machine()} {numbers}".strip()


def _cpu_words() -> set[str]:
    return set(_cpu_facts().split())


@cache
def _cpu_facts() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def gpu_training_precision(capabilities: Iterable[tuple[int, int]]) -> str:
    """The Keras dtype policy that trains fastest on GPUs of these compute capabilities (major, minor).

    bfloat16 is preferred to float16, whose range requires loss scaling.
    """
    generation = min(major for major, _ in capabilities)
    if generation >= _AMPERE:
        return "mixed_bfloat16"
    return "mixed_float16" if generation >= _VOLTA else "float32"


def gpu_multiplies_float16(capability: tuple[int, int]) -> bool:
    """Whether a GPU of this compute capability has tensor cores; TensorFlow uses float16 only on these."""
    return capability[0] >= _VOLTA


_RECORDED: Final = (
    *("ray", "keras", "tensorflow", "openvino", "onnxruntime", "onnxruntime-gpu"),
    *("deltalake", "pyarrow", "pillow", "numpy"),
)


def installed_versions() -> dict[str, str]:
    """Versions of this project, of Python and of the libraries that can change a result."""
    versions = {"pneumonia-scoring": __version__, "python": platform.python_version()}
    for name in _RECORDED:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            # A container image for scoring may lack the libraries of training.
            continue
    return versions

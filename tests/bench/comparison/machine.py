"""The machine that a figure was measured on."""

import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

_FLAGS: Final = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
_PACKAGES: Final = ("ray", "keras", "tensorflow", "openvino", "pillow", "pyarrow")
_LOOK_S: Final = 3.0


def machine() -> dict[str, str]:
    """Processor, cores, memory, versions and present load."""
    info = Path("/proc/cpuinfo").read_text()
    fields = dict(line.split(":", 1) for line in info.split("\n\n")[0].splitlines() if ":" in line)
    named = {name.strip(): value.strip() for name, value in fields.items()}
    flags = set(named.get("flags", "").split())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return {
        "processor": f"{named.get('model name', platform.machine())}, "
        f"{' '.join(flag for flag in _FLAGS if flag in flags)}",
        "cores": f"{len(os.sched_getaffinity(0))} of {os.cpu_count()}",
        "memory": f"{memory:.0f} GiB",
        "versions": ", ".join([f"Python {platform.python_version()}", *_versions()]),
        "load at the start": f"{os.getloadavg()[0]:.1f}",
    }


def busy_share() -> float:
    """Which share of the cores other processes keep busy, while this one sleeps."""
    before, started = busy_seconds(), time.perf_counter()
    time.sleep(_LOOK_S)
    return (busy_seconds() - before) / (time.perf_counter() - started) / (os.cpu_count() or 1)


def busy_seconds() -> float:
    """Core seconds that were not idle since the machine started."""
    values = [int(value) for value in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    idle = values[3] + values[4]
    return (sum(values) - idle) / os.sysconf("SC_CLK_TCK")


def _versions() -> list[str]:
    found = []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return found

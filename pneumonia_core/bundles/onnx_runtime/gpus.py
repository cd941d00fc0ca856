"""The GPUs of this machine as the CUDA driver knows them, and those that ONNX Runtime can compute on."""

import ctypes
from typing import Final

from pneumonia_core.bundles.onnx_runtime.installed import has_onnxruntime

# CUdevice_attribute of the driver's interface: compute capability, major and minor.
_CAPABILITY: Final = (75, 76)
_NAME_BYTES: Final = 256


def onnxruntime_gpus(driver: ctypes.CDLL) -> tuple[tuple[int, int], ...]:
    """The compute capabilities (major, minor) of this machine's GPUs, by the CUDA `driver`.

    None where ONNX Runtime is not installed, or only the one for CPUs.
    """
    if not has_onnxruntime():
        return ()
    # Most machines have no GPU, and do without the import.
    from pneumonia_core.bundles.onnx_runtime.providers import CUDA, load_providers

    return driver_gpus(driver) if CUDA in load_providers() else ()


def driver_gpus(driver: ctypes.CDLL) -> tuple[tuple[int, int], ...]:
    """The compute capabilities of all GPUs that the CUDA `driver` gives this process."""
    count = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return ()
    return tuple(_capability(driver, number) for number in range(count.value))


def driver_cards(driver: ctypes.CDLL) -> tuple[str, ...]:
    """The names of those GPUs, such as 'NVIDIA A100-SXM4-40GB'; 'GPU' where the driver does not say."""
    return tuple(_name(driver, number) for number in range(len(driver_gpus(driver))))


def _name(driver: ctypes.CDLL, number: int) -> str:
    device, text = ctypes.c_int(), ctypes.create_string_buffer(_NAME_BYTES)
    if driver.cuDeviceGet(ctypes.byref(device), number) or driver.cuDeviceGetName(text, _NAME_BYTES, device):
        return "GPU"
    return text.value.decode("ascii", "replace") or "GPU"


def _capability(driver: ctypes.CDLL, number: int) -> tuple[int, int]:
    """(0, 0), the least, where the driver does not say."""
    device, value = ctypes.c_int(), ctypes.c_int()
    found = [0, 0]
    if driver.cuDeviceGet(ctypes.byref(device), number) == 0:
        for place, attribute in enumerate(_CAPABILITY):
            if driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device) == 0:
                found[place] = value.value
    return found[0], found[1]

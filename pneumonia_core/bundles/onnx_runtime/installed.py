"""Whether this machine has what the engine needs, found out without importing it."""

import importlib.util
from typing import Final

from pneumonia_core.bundles.engines import ONNX_ENGINE
from pneumonia_core.errors import InvalidInput, Remedy

_WRITING: Final = ("onnxruntime", "onnx", "tf2onnx")


def has_onnxruntime() -> bool:
    """Whether ONNX Runtime is installed, for CPUs or for GPUs."""
    return importlib.util.find_spec("onnxruntime") is not None


def check_onnx_export() -> None:
    """Raise InvalidInput where networks cannot be written as ONNX here."""
    missing = [name for name in _WRITING if importlib.util.find_spec(name) is None]
    if missing:
        verb = "are" if len(missing) > 1 else "is"
        raise InvalidInput(
            f"the engine {ONNX_ENGINE} is made with packages of which {', '.join(missing)} {verb} not "
            "installed.",
            Remedy.INSTALL_ONNX,
        )

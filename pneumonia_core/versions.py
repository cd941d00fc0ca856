"""Which versions wrote something: part of every bundle and run, so that it can be done again."""

import importlib.metadata
import platform
from typing import Final

from pneumonia_core import __version__

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

"""A working folder of their own for Ray's processes: nothing is imported from the current folder of a user.

Imports Ray: `jobs.ray_runtime.session` sets the environment first.
"""

import contextlib
import os
import site
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ray.job_config import JobConfig

from pneumonia_core.system.import_path import CODE_FOLDER

# Variables that may name a file relative to the user's folder, and that Ray's processes read.
_NAME_FILES: Final = (
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CA_BUNDLE",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "RAY_AUTH_TOKEN_PATH",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_FILE",
)


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Ray is started, or joined, from this folder, which should be empty.

    Ray's processes inherit the current folder and the environment of the one that starts them, and a driver
    puts its own first into its workers' import path. Paths of this project are absolute, so that its threads
    do not notice.
    """
    changed = {name: str(Path(os.environ[name]).absolute()) for name in _NAME_FILES if os.environ.get(name)}
    changed["PYTHONSAFEPATH"] = "1"
    before = {name: os.environ.get(name) for name in changed}
    # The folder may have been renamed or removed when the block ends.
    here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.environ.update(changed)
        os.chdir(folder)
        yield
    finally:
        os.fchdir(here)
        os.close(here)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def job_config() -> JobConfig:
    """The configuration of a job whose workers find this project's code, also in a checkout."""
    installed = {Path(folder).resolve() for folder in [*site.getsitepackages(), site.getusersitepackages()]}
    return JobConfig(_py_driver_sys_path=[] if CODE_FOLDER in installed else [str(CODE_FOLDER)])

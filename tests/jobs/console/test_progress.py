"""Output of C++ libraries goes to a file, which stays only where its name is printed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import REPOSITORY

BLOCK = """
import os, signal
from jobs.console.output import native_stderr_aside
with native_stderr_aside():
    os.write(2, b"native words")
    {end}
"""


@pytest.fixture
def ended(tmp_path):
    """Runs a block that ends like this; its stderr and the files that it left."""

    def run(end: str) -> tuple[str, list[Path]]:
        done = subprocess.run(
            [sys.executable, "-c", BLOCK.format(end=end)],
            cwd=REPOSITORY,
            env={**os.environ, "TMPDIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stderr, list(tmp_path.iterdir())

    return run


@pytest.mark.parametrize(
    "end", ["pass", "raise KeyboardInterrupt", "raise SystemExit(1)", "os.kill(os.getpid(), signal.SIGKILL)"]
)
def test_no_file_stays_behind(ended, end):
    said, left = ended(end)
    assert not left
    assert "native words" not in said


def test_file_is_named_and_kept_after_an_unexpected_error(ended):
    said, left = ended("raise RuntimeError('ours')")
    (file,) = left
    assert f"what the libraries printed is in {file}" in said
    assert file.read_text() == "native words"
    assert "native words" not in said

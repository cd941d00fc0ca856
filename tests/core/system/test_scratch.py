"""Scratch folders: removed by their process, or by the next one where it was killed."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from support.paths import REPOSITORY

from pneumonia_core.system.scratch import PREFIX, ScratchFolder

HOLDER = """
import os, sys
from pneumonia_core.system.scratch import ScratchFolder
folder = ScratchFolder("plan")
(folder.path / "names").write_text("patient")
print(folder.path, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def holder(temporary):
    """A process with a scratch folder that looks as if it had been there for hours."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    assert process.stdout
    folder = Path(process.stdout.readline().strip())
    _grow_old(folder)
    yield process, folder
    process.kill()
    process.communicate()


def _grow_old(folder: Path) -> None:
    os.utime(folder, (0, 0))


def test_folder_of_a_killed_process_is_removed_by_the_next_and_that_of_a_living_one_is_not(holder, temporary):
    process, folder = holder
    with ScratchFolder("listing"):
        assert (folder / "names").exists()
    process.kill()
    process.wait()
    with ScratchFolder("listing") as own:
        assert not folder.exists()
        assert own.exists()
    assert not list(temporary.iterdir())


def test_what_is_not_ours_is_left_alone(temporary, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "kept").write_text("")
    _grow_old(elsewhere)
    (temporary / f"{PREFIX}link").symlink_to(elsewhere)
    (temporary / f"{PREFIX}file").write_text("")
    results, new = temporary / "pneumonia-results", temporary / f"{PREFIX}new"
    for folder in (results, new):
        folder.mkdir()
    _grow_old(results)
    with ScratchFolder("plan"):
        assert (elsewhere / "kept").exists()
        assert (temporary / f"{PREFIX}file").exists()
        assert results.exists()
        assert new.exists(), "its owner is about to lock it"

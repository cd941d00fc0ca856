"""Folders that cannot be written: one line says what to do, the table stays as it was, the run resumes."""

import contextlib
import os
import subprocess
from pathlib import Path

import pytest
from deltalake import DeltaTable
from support.runs_killed import check_equal, command, finish
from support.scoring import last_json, pneumonia

from pneumonia_core.system.failpoints import VARIABLE


@pytest.fixture
def mount(tmp_path):
    """Mounts file systems, and takes them down again."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    mounted: list[Path] = []

    def mount(folder: Path, *arguments: str) -> Path:
        folder.mkdir(exist_ok=True)
        done = subprocess.run(["mount", *arguments, str(folder)], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in reversed(mounted):
        subprocess.run(["umount", str(folder)], check=True)


@contextlib.contextmanager
def filled(folder: Path, leave: int):
    """The disk of a folder has `leave` bytes left in the block."""
    status = os.statvfs(folder)
    ballast = folder / "ballast"
    ballast.write_bytes(bytes(max(0, status.f_bavail * status.f_frsize - leave)))
    try:
        yield
    finally:
        ballast.unlink()


def check_said(done: subprocess.CompletedProcess[str], exit_code: int, what: str) -> None:
    assert done.returncode == exit_code, done.stderr
    assert what in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert last_json(done)["exit_code"] == exit_code


def version(results: Path) -> int | None:
    """The version of the table; None where there is none yet."""
    entries = list((results / "scores" / "_delta_log").glob("*.json"))
    return DeltaTable(str(results / "scores")).version() if entries else None


def test_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(
    archive, tiny_bundle, undisturbed, cluster, mount, tmp_path
):
    results = mount(tmp_path / "disk", "-t", "tmpfs", "-o", "size=2m", "tmpfs") / "r"
    arguments = command(archive, tiny_bundle, results, *cluster.options)
    parts = 0
    # The disk is full at another write each time: what was written stays, and there is some more room.
    for room in (0, 4_096, 60_000, 60_000):
        with filled(tmp_path / "disk", room):
            check_said(pneumonia(*arguments), 1, "No space left on device")
        assert version(results) in (None, 0)
        parts, before = len(list(results.glob("runs/*/parts/*.parquet"))), parts
        assert parts >= before
    assert parts
    finish(arguments)
    check_equal(results, undisturbed)


def test_disk_of_the_driver_that_is_full_at_the_merge_is_none_of_the_cluster_s(
    archive, tiny_bundle, undisturbed, cluster, tmp_path
):
    arguments = command(archive, tiny_bundle, tmp_path / "r", *cluster.options)
    done = pneumonia(*arguments, **{VARIABLE: "write@run_date=enospc"})
    assert done.returncode == 0, done.stderr
    check_equal(tmp_path / "r", undisturbed)


@pytest.mark.slow
def test_disk_that_is_full_at_the_merge_keeps_the_parts(archive, tiny_bundle, undisturbed, cluster, tmp_path):
    arguments = command(archive, tiny_bundle, tmp_path / "r", *cluster.options)
    cluster.workers_do("write@run_date=enospc")
    check_said(pneumonia(*arguments, **{VARIABLE: "write@run_date=enospc"}), 1, "No space left on device")
    cluster.workers_do(f"decode=log:{tmp_path / 'reads'}")
    finish(arguments)
    assert not (tmp_path / "reads").exists()
    check_equal(tmp_path / "r", undisturbed)


def test_disk_that_is_full_after_the_commit_keeps_the_rows(
    archive, tiny_bundle, undisturbed, cluster, tmp_path
):
    arguments = command(archive, tiny_bundle, tmp_path / "r", *cluster.options)
    done = pneumonia(*arguments, **{VARIABLE: "write@run.html=enospc"})
    check_said(done, 1, "version 1 of the table has the rows")
    assert "Nothing was committed" not in done.stderr
    finish(arguments)
    check_equal(tmp_path / "r", undisturbed)


def test_results_that_may_only_be_read_are_refused_and_stay_as_they_are(
    archive, tiny_bundle, cluster, mount, tmp_path
):
    results = tmp_path / "disk"
    mount(results, "-t", "tmpfs", "-o", "size=8m", "tmpfs")
    arguments = command(archive, tiny_bundle, results, *cluster.options)
    read_only = ["mount", "-o", "remount,ro", str(results)]
    subprocess.run(read_only, check=True)
    check_said(pneumonia(*arguments), 2, "Read-only file system). Choose a location that you may write to")
    subprocess.run(["mount", "-o", "remount,rw", str(results)], check=True)
    finish(arguments)
    files = sorted(str(path) for path in results.rglob("*"))
    (archive_of_another_night := tmp_path / "more").mkdir()
    (archive_of_another_night / "new.jpeg").write_bytes(next(archive.rglob("*.jpeg")).read_bytes())
    subprocess.run(read_only, check=True)
    again = command(archive_of_another_night, tiny_bundle, results, *cluster.options)
    check_said(pneumonia(*again), 2, "Read-only file system). Choose a location")
    assert sorted(str(path) for path in results.rglob("*")) == files
    assert version(results) == 1

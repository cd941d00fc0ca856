"""Whatever dies, the same command ends with the rows that an undisturbed run has, and re-reads little."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import descendants, kill_with_descendants, wait_for_process
from scoring import REPOSITORY, last_json, pneumonia, rows

from pneumonia_core.failpoints import VARIABLE
from pneumonia_core.phantoms import write_archive

IMAGES = 160
CHUNK = 16
COLUMNS = [
    "image_uri",
    "image_sha256",
    "status",
    "reject_reason",
    "p_normal",
    "p_bacterial",
    "p_viral",
    "finding",
    "attempt",
]

DRIVER_FAILPOINTS = [
    "save.before@", "save.after@", "plan.before", "plan.after", "save.before@scoring", "save.after@scoring",
    "merge.before", "merge.after", "save.before@staged", "save.after@staged", "commit.before", "commit.after",
    "save.before@committed", "save.after@committed", "cleanup",
]  # fmt: skip
WORKER_FAILPOINTS = ["part.before@3", "part.after@3"]


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kills")
    write_archive(folder, IMAGES, seed=8, broken=True)
    return folder


@pytest.fixture(scope="module")
def undisturbed(archive, tiny_bundle, tmp_path_factory):
    results = tmp_path_factory.mktemp("undisturbed")
    done = pneumonia(*command(archive, tiny_bundle, results))
    assert done.returncode == 0, done.stderr
    return rows(results).select(COLUMNS).sort_by("image_uri")


def command(archive: Path, bundle, results: Path, *more: object) -> list[object]:
    return [
        "score",
        archive,
        "--model",
        bundle.path,
        "--results",
        results,
        "--chunk-size",
        CHUNK,
        "--num-cpus",
        2,
        *more,
    ]


def start(arguments: list[object], **environment: str) -> subprocess.Popen[str]:
    settings = {k: v for k, v in os.environ.items() if k not in ("PYTHONDONTWRITEBYTECODE", "RAY_ADDRESS")}
    return subprocess.Popen(
        [sys.executable, "-m", "jobs.cli", *map(str, arguments)],
        cwd=REPOSITORY,
        env={**settings, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(arguments: list[object], **environment: str) -> dict:
    """Run the command again until it ends well, at most three times."""
    for _ in range(3):
        done = pneumonia(*arguments, **environment)
        if done.returncode == 0:
            return last_json(done)
    raise AssertionError(done.stderr)


def reads(log: Path) -> int:
    return len(log.read_text().splitlines()) if log.exists() else 0


def check_equal(results: Path, undisturbed) -> None:
    assert rows(results).select(COLUMNS).sort_by("image_uri").equals(undisturbed)
    unfinished = results / "runs" / ".unfinished"
    assert not list(unfinished.iterdir())


@pytest.mark.parametrize(
    "place",
    [
        pytest.param(place, marks=[] if place in ("plan.after", "commit.after") else [pytest.mark.slow])
        for place in DRIVER_FAILPOINTS
    ],
)
def test_driver_killed_at_a_failpoint_is_resumed(archive, tiny_bundle, undisturbed, tmp_path, place):
    log = tmp_path / "reads"
    arguments = command(archive, tiny_bundle, tmp_path / "r")
    rule = f"decode=log:{log}"
    died = pneumonia(*arguments, **{VARIABLE: f"{place}=kill,once:{tmp_path / 'once'};{rule}"})
    assert died.returncode == -signal.SIGKILL
    finish(arguments, **{VARIABLE: rule})
    check_equal(tmp_path / "r", undisturbed)
    assert reads(log) <= IMAGES + 2 * CHUNK


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["cpu", "gpu"])
@pytest.mark.parametrize("place", WORKER_FAILPOINTS)
def test_worker_killed_at_a_failpoint_is_replaced(archive, tiny_bundle, undisturbed, tmp_path, place, shape):
    rule = f"{place}=kill,once:{tmp_path / 'once'}"
    done = pneumonia(*command(archive, tiny_bundle, tmp_path / "r", "--shape", shape), **{VARIABLE: rule})
    assert done.returncode == 0, done.stderr
    check_equal(tmp_path / "r", undisturbed)


def kill_at_random(victim: str, archive: Path, bundle, undisturbed, folder: Path, seed: int) -> dict:
    """Slow the decoding down, kill the victim at a seeded moment, end the run, compare; what happened."""
    log = folder / "reads"
    shape = "gpu" if victim == "decoder" else "cpu"
    arguments = command(archive, bundle, folder / "r", "--shape", shape)
    rule = f"decode=log:{log}"
    process = start(arguments, **{VARIABLE: f"decode=sleep:0.04;{rule}"})
    try:
        name = {"driver": "", "actor": "ray::MapWorker", "decoder": "ray::MapBatches(decode"}[victim]
        moment = random.Random(seed).uniform(0.0, 3.0)
        if victim == "driver":
            wait_for_process(process.pid, "ray::")
            time.sleep(moment)
            kill_with_descendants(process.pid)
            process.communicate()
        else:
            wait_for_process(process.pid, name)
            time.sleep(moment)
            os.kill(wait_for_process(process.pid, name), signal.SIGKILL)
            _, errors = process.communicate(timeout=240)
            assert process.returncode == 0, errors
    finally:
        kill_with_descendants(process.pid)
    finish(arguments, **{VARIABLE: rule})
    check_equal(folder / "r", undisturbed)
    return {"reads": reads(log), "re-reads": reads(log) - IMAGES}


# What one death can cost: an actor has two chunks in work; decoding runs ahead of the engine by some more.
IN_FLIGHT = {"driver": 2 * CHUNK, "actor": 2 * CHUNK, "decoder": 2 * CHUNK}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("victim", ["driver", "actor", "decoder"])
def test_killed_at_a_random_moment(archive, tiny_bundle, undisturbed, tmp_path, victim, seed):
    happened = kill_at_random(victim, archive, tiny_bundle, undisturbed, tmp_path, seed)
    assert happened["re-reads"] <= IN_FLIGHT[victim], happened


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("victim", ["driver", "actor", "decoder"])
def test_soak_of_kills(archive, tiny_bundle, undisturbed, tmp_path, victim):
    total = 0
    for seed in range(100, 120):
        folder = tmp_path / str(seed)
        folder.mkdir()
        happened = kill_at_random(victim, archive, tiny_bundle, undisturbed, folder, seed)
        total += happened["re-reads"]
        assert happened["re-reads"] <= IN_FLIGHT[victim]
    print(f"\n{victim}: 20 kills, {20 * IMAGES} rows, {total} images read again")


def test_sigterm_keeps_what_is_finished_and_exits_1(archive, tiny_bundle, undisturbed, tmp_path):
    arguments = command(archive, tiny_bundle, tmp_path / "r")
    process = start(arguments, **{VARIABLE: "decode=sleep:0.1"})
    wait_for_process(process.pid, "ray::MapWorker")
    while not list((tmp_path / "r" / "runs").glob("*/parts/*.parquet")):
        time.sleep(0.1)
    asked = time.monotonic()
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - asked < 25
    assert process.returncode == 1
    assert "same command again" in errors
    assert "Traceback" not in errors
    assert not descendants(process.pid)
    finish(arguments)
    check_equal(tmp_path / "r", undisturbed)


@pytest.mark.parametrize("shape", ["cpu", pytest.param("gpu", marks=pytest.mark.slow)])
def test_image_that_kills_its_decoder_costs_one_row(archive, tiny_bundle, undisturbed, tmp_path, shape):
    done = pneumonia(
        *command(archive, tiny_bundle, tmp_path / "r", "--shape", shape),
        **{VARIABLE: "decode@cxr_000040=kill"},
    )
    assert done.returncode == 0, done.stderr
    check_one_rejected(tmp_path / "r", undisturbed, "cxr_000040", "crashed_decoder")


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["cpu", "gpu"])
def test_image_that_kills_the_scoring_actor_costs_one_row(archive, tiny_bundle, undisturbed, tmp_path, shape):
    done = pneumonia(
        *command(archive, tiny_bundle, tmp_path / "r", "--shape", shape),
        **{VARIABLE: "engine@cxr_000040=kill"},
    )
    assert done.returncode == 0, done.stderr
    check_one_rejected(tmp_path / "r", undisturbed, "cxr_000040", "engine_error")


def check_one_rejected(results: Path, undisturbed, name: str, reason: str) -> None:
    actual = rows(results).select(COLUMNS).sort_by("image_uri").to_pylist()
    expected = undisturbed.to_pylist()
    assert [row["image_uri"] for row in actual] == [row["image_uri"] for row in expected]
    differing = [row for row, other in zip(actual, expected, strict=True) if row != other]
    assert [(name in row["image_uri"], row["status"], row["reject_reason"]) for row in differing] == [
        (True, "rejected", reason)
    ]


def test_full_disk_is_one_line_and_the_run_goes_on_afterwards(archive, tiny_bundle, undisturbed, tmp_path):
    arguments = command(archive, tiny_bundle, tmp_path / "r")
    for place in ("write@00000003.parquet", "write@run_date"):
        full = pneumonia(*arguments, **{VARIABLE: f"{place}=enospc"})
        assert full.returncode == 1, full.stderr
        assert "No space left on device" in full.stderr
        assert "Traceback" not in full.stderr
    finish(arguments)
    check_equal(tmp_path / "r", undisturbed)


def test_resuming_with_another_chunk_size_is_refused_and_fresh_starts_over(
    archive, tiny_bundle, undisturbed, tmp_path
):
    arguments = command(archive, tiny_bundle, tmp_path / "r")
    pneumonia(*arguments, **{VARIABLE: "commit.before=kill"})
    refused = pneumonia(*arguments, "--chunk-size", 8)
    assert refused.returncode == 2
    assert "chunk_size: 16 then, 8 now" in refused.stderr
    fresh = pneumonia(*arguments, "--chunk-size", 8, "--fresh")
    assert fresh.returncode == 0, fresh.stderr
    check_equal(tmp_path / "r", undisturbed)

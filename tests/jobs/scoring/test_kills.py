"""After any death, the same command ends with the rows of an undisturbed run, and re-reads few images."""

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
from support.processes import descendants, kill_with_descendants, wait_for_process
from support.runs_killed import (
    COLUMNS,
    IMAGES,
    IN_FLIGHT,
    OWN_RAY,
    check_equal,
    command,
    finish,
    reads,
    start,
)
from support.scoring import last_json, pneumonia, pneumonia_here, rows

from pneumonia_core.system.failpoints import VARIABLE

DRIVER_FAILPOINTS = [
    "save.before@", "save.after@", "plan.before", "plan.after", "save.before@scoring", "save.after@scoring",
    "merge.before", "merge.after", "save.before@staged", "save.after@staged", "commit.before", "commit.after",
    "save.before@committed", "save.after@committed", "cleanup",
]  # fmt: skip
WORKER_FAILPOINTS = ["part.before@3", "part.after@3"]


@pytest.mark.parametrize(
    "place",
    [
        pytest.param(place, marks=[] if place in ("plan.after", "commit.before") else [pytest.mark.slow])
        for place in DRIVER_FAILPOINTS
    ],
)
def test_driver_killed_at_a_failpoint_is_resumed(archive, tiny_bundle, undisturbed, cluster, tmp_path, place):
    log = tmp_path / "reads"
    cluster.workers_do(f"decode=log:{log}")
    arguments = command(archive, tiny_bundle, tmp_path / "r", *cluster.options)
    died = pneumonia(*arguments, **{VARIABLE: f"{place}=kill"})
    assert died.returncode == -signal.SIGKILL
    finish(arguments)
    check_equal(tmp_path / "r", undisturbed)
    assert reads(log) <= IMAGES + IN_FLIGHT


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["cpu", "gpu"])
@pytest.mark.parametrize("place", WORKER_FAILPOINTS)
def test_worker_killed_at_a_failpoint_is_replaced(
    archive, tiny_bundle, undisturbed, cluster, tmp_path, place, shape
):
    cluster.workers_do(f"{place}=kill,once:{tmp_path / 'once'}")
    done = pneumonia_here(*command(archive, tiny_bundle, tmp_path / "r", "--shape", shape, *cluster.options))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "once").exists()
    check_equal(tmp_path / "r", undisturbed)


def kill_at_random(victim: str, archive: Path, bundle, undisturbed, cluster, folder: Path, seed: int) -> int:
    """Slow the decoding down, kill the victim at a seeded moment, end the run, compare; images read again."""
    log = folder / "reads"
    slowly = (f"decode=log:{log}", "decode=sleep:0.07")
    moment = random.Random(seed).uniform(0.0, 3.0)
    if victim == "driver":
        _kill_driver(command(archive, bundle, folder / "r", *OWN_RAY), moment, ";".join(slowly), log)
    else:
        cluster.workers_do(*slowly)
        shape, name = {"actor": ("cpu", "ray::MapWorker"), "decoder": ("gpu", "ray::MapBatches(decode")}[
            victim
        ]
        _kill_worker(command(archive, bundle, folder / "r", "--shape", shape, *cluster.options), name, moment)
    cluster.workers_do(f"decode=log:{log}")
    finish(command(archive, bundle, folder / "r", *cluster.options))
    check_equal(folder / "r", undisturbed)
    return reads(log) - IMAGES


def _kill_driver(arguments: list[object], moment: float, rules: str, log: Path) -> None:
    """Kill the driver and its Ray, as a dying machine does. Failpoints cover all before the first image."""
    process = start(arguments, **{VARIABLE: rules})
    try:
        while not log.exists() and process.poll() is None:
            time.sleep(0.05)
        time.sleep(moment)
    finally:
        kill_with_descendants(process.pid)
        process.communicate()


def _kill_worker(arguments: list[object], name: str, moment: float) -> None:
    process = start(arguments)
    try:
        wait_for_process(os.getpid(), name)
        time.sleep(moment)
        os.kill(wait_for_process(os.getpid(), name), signal.SIGKILL)
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
    finally:
        kill_with_descendants(process.pid)


@pytest.mark.slow
@pytest.mark.parametrize(("victim", "seed"), [("driver", 0), ("actor", 1), ("decoder", 2)])
def test_killed_at_a_random_moment(archive, tiny_bundle, undisturbed, cluster, tmp_path, victim, seed):
    assert kill_at_random(victim, archive, tiny_bundle, undisturbed, cluster, tmp_path, seed) <= IN_FLIGHT


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("victim", ["driver", "actor", "decoder"])
def test_soak_of_kills(archive, tiny_bundle, undisturbed, cluster, tmp_path, victim, report):
    for seed in range(100, 120):
        folder = tmp_path / str(seed)
        folder.mkdir()
        again = kill_at_random(victim, archive, tiny_bundle, undisturbed, cluster, folder, seed)
        assert again <= IN_FLIGHT
        report.add(f"{victim} killed", again)


def test_sigterm_keeps_what_is_finished_and_exits_1(archive, tiny_bundle, undisturbed, cluster, tmp_path):
    process = start(
        command(archive, tiny_bundle, tmp_path / "r", *OWN_RAY), **{VARIABLE: "decode=sleep:0.15"}
    )
    wait_for_process(process.pid, "ray::MapWorker", timeout_s=180)
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
    (record,) = (tmp_path / "r" / "runs").glob("*/run.json")
    stopped = json.loads(record.read_text())["timings"]
    finish(command(archive, tiny_bundle, tmp_path / "r", *cluster.options))
    check_equal(tmp_path / "r", undisturbed)
    # What both commands took is added up.
    timings = json.loads(record.read_text())["timings"]
    assert 0 < stopped["images"] < timings["images"] == IMAGES
    assert 0 < stopped["actors"] < timings["actors"]
    assert stopped["stages"]["decode"] < timings["stages"]["decode"]


@pytest.mark.parametrize("shape", ["cpu", pytest.param("gpu", marks=pytest.mark.slow)])
def test_image_that_kills_its_decoder_costs_one_row(
    archive, tiny_bundle, undisturbed, cluster, tmp_path, shape
):
    cluster.workers_do("decode@cxr_000040=abort")
    done = pneumonia_here(*command(archive, tiny_bundle, tmp_path / "r", "--shape", shape, *cluster.options))
    assert done.returncode == 0, done.stderr
    check_one_rejected(tmp_path / "r", undisturbed, "cxr_000040", "crashed_decoder")


@pytest.mark.parametrize("shape", ["cpu", pytest.param("gpu", marks=pytest.mark.slow)])
def test_image_that_crashes_the_engine_costs_one_row_and_a_later_run_tries_it_again(
    archive, tiny_bundle, undisturbed, cluster, tmp_path, shape
):
    cluster.workers_do("engine@cxr_000040=abort")
    arguments = command(archive, tiny_bundle, tmp_path / "r", "--shape", shape, *cluster.options)
    done = pneumonia_here(*arguments)
    assert done.returncode == 0, done.stderr
    check_one_rejected(tmp_path / "r", undisturbed, "cxr_000040", "crashed_engine")
    cluster.workers_do()
    later = last_json(pneumonia_here(*arguments))
    assert (later["scored"], later["rejected"], later["unchanged"]) == (1, 0, IMAGES - 1)


@pytest.mark.parametrize("shape", ["cpu", pytest.param("gpu", marks=pytest.mark.slow)])
def test_workers_killed_from_outside_at_one_chunk_blame_no_image(
    archive, tiny_bundle, undisturbed, cluster, tmp_path, shape
):
    """Three deaths at a chunk of good images, as of evicted actors or lost nodes: all have their scores."""
    kills = [f"part.before@3=kill,once:{tmp_path / str(number)}" for number in range(3)]
    cluster.workers_do(*kills)
    done = pneumonia_here(*command(archive, tiny_bundle, tmp_path / "r", "--shape", shape, *cluster.options))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "2").exists()
    check_equal(tmp_path / "r", undisturbed)


@pytest.mark.soak
@pytest.mark.parametrize("shape", ["cpu", "gpu"])
@pytest.mark.parametrize("step", ["decode", "engine"])
def test_soak_of_deadly_images_takes_little_longer(
    archive, tiny_bundle, cluster, tmp_path, shape, step, report
):
    seconds = []
    for number, rule in enumerate(("", f"{step}@cxr_000040=abort")):
        cluster.workers_do(rule)
        started = time.monotonic()
        arguments = command(archive, tiny_bundle, tmp_path / str(number), "--shape", shape, *cluster.options)
        done = pneumonia(*arguments)
        seconds.append(time.monotonic() - started)
        assert done.returncode == 0, done.stderr
    report.note(f"{step} killed by an image, shape {shape}: {seconds[1] - seconds[0]:.1f} s longer")
    assert seconds[1] - seconds[0] < 30


def check_one_rejected(results: Path, undisturbed, name: str, reason: str) -> None:
    actual = rows(results).select(COLUMNS).sort_by("image_uri").to_pylist()
    expected = undisturbed.to_pylist()
    assert [row["image_uri"] for row in actual] == [row["image_uri"] for row in expected]
    differing = [row for row, other in zip(actual, expected, strict=True) if row != other]
    assert [(name in row["image_uri"], row["status"], row["reject_reason"]) for row in differing] == [
        (True, "rejected", reason)
    ]


def test_resuming_with_another_chunk_size_is_refused_and_fresh_starts_over(
    archive, tiny_bundle, undisturbed, cluster, tmp_path
):
    arguments = command(archive, tiny_bundle, tmp_path / "r", *cluster.options)
    pneumonia(*arguments, **{VARIABLE: "plan.after=kill"})
    refused = pneumonia_here(*arguments, "--chunk-size", 16)
    assert refused.returncode == 2
    assert "chunk_size: 8 (run) / 16 (now)" in refused.stderr
    fresh = pneumonia_here(*arguments, "--chunk-size", 16, "--fresh")
    assert fresh.returncode == 0, fresh.stderr
    check_equal(tmp_path / "r", undisturbed)


def test_committed_run_killed_before_its_last_record_only_gets_that_record(
    archive, tiny_bundle, undisturbed, cluster, tmp_path
):
    arguments = command(archive, tiny_bundle, tmp_path / "r", *cluster.options)
    died = pneumonia(*arguments, **{VARIABLE: "commit.after=kill"})
    assert died.returncode == -signal.SIGKILL
    assert rows(tmp_path / "r").num_rows == IMAGES
    cluster.workers_do(f"decode=log:{tmp_path / 'reads'}")
    again = pneumonia_here(*arguments)
    result = last_json(again)
    assert (again.returncode, result["version"], result["scored"] + result["rejected"]) == (0, 1, IMAGES)
    assert not (tmp_path / "reads").exists()
    check_equal(tmp_path / "r", undisturbed)

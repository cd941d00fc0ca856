"""The timings of a run: they are read again, add up over its commands, and say what limits it."""

import dataclasses
import json
import time

import pytest

from pneumonia_core.runs.outcome.limit import concluded, in_one_line, limit_of_workers, limit_shares
from pneumonia_core.runs.outcome.timings import RunTimings, StageSeconds, StepClock, WorkerSeconds

SCORED = RunTimings(
    seconds=100.0,
    images=1000,
    actors=2,
    stages=StageSeconds(read=10, decode=100, infer=40, write=4, load=2, idle=4),
    steps={"connect": 5.0, "plan": 1.0, "nodes": 2.0, "score": 80.0, "merge": 1.0, "commit": 2.0},
)
NOTHING = RunTimings()


def of(word: str, **changes) -> RunTimings:
    timings = concluded(dataclasses.replace(SCORED, **changes), NOTHING)
    assert timings is not None
    assert timings.limit == word, timings.why
    return timings


def test_timings_are_read_as_they_were_written():
    written = json.loads(json.dumps(of("decoding").as_json()))
    assert RunTimings.from_json(written) == of("decoding")


def test_timings_of_a_newer_format_are_left_aside():
    assert RunTimings.from_json({"format_version": 2}) is None
    assert RunTimings.from_json(None) is None


def test_commands_of_a_resumed_run_add_up():
    again = RunTimings(10.0, 50, 1, StageSeconds(decode=5), StageSeconds(read=1), {"score": 8.0}, 0.5)
    both = SCORED + again
    assert (both.seconds, both.images, both.actors) == (110.0, 1050, 3)
    assert (both.stages.decode, both.stages.read, both.tasks.read) == (105, 10, 1)
    assert (both.steps["score"], both.steps["connect"], both.listing_s) == (88.0, 5.0, 0.5)
    assert both.scored_per_s == pytest.approx(1050 / 88)


def test_shares_of_a_run_add_up_to_one():
    assert sum(limit_shares(SCORED).values()) == pytest.approx(1)
    assert sum(limit_shares(dataclasses.replace(SCORED, tasks=SCORED.stages)).values()) == pytest.approx(1)


def test_what_takes_the_most_seconds_limits_the_run():
    of("decoding")
    of("engine", stages=StageSeconds(decode=40, infer=100))
    of("reading", stages=StageSeconds(read=90, decode=40))
    of("writing", steps={"score": 20.0, "merge": 70.0, "commit": 2.0})
    of("start", steps={"connect": 60.0, "score": 20.0})
    of("nodes", steps={"nodes": 70.0, "score": 20.0})
    of("listing", listing_s=60.0)
    of("few chunks", stages=StageSeconds(decode=40, idle=100))


def test_an_engine_that_waits_is_limited_by_the_tasks_that_decode():
    waiting = StageSeconds(infer=40, idle=100)
    of("decoding", stages=waiting, tasks=StageSeconds(read=10, decode=90))
    of("reading", stages=waiting, tasks=StageSeconds(read=90, decode=10))
    of("engine", stages=StageSeconds(infer=100, idle=20), tasks=StageSeconds(decode=90))
    of("decoding", stages=StageSeconds(), tasks=StageSeconds(decode=1))
    of("few chunks", stages=StageSeconds())


def test_what_limits_the_workers_does_not_depend_on_start_and_commit():
    slow_start = dataclasses.replace(SCORED, steps={"connect": 90.0, "score": 5.0, "commit": 5.0})
    assert concluded(slow_start, NOTHING).limit == "start"
    word, why = limit_of_workers(slow_start)
    assert word == "decoding"
    assert why.startswith("decoding images took 63%")
    slow_load = dataclasses.replace(SCORED, stages=StageSeconds(decode=10, infer=5, load=100))
    assert concluded(slow_load, NOTHING).limit == "start"
    assert limit_of_workers(slow_load)[0] == "decoding"


def test_the_line_for_a_person_says_rate_stages_and_limit():
    line = in_one_line(of("decoding"))
    assert line.startswith("12.5 images/s while 2 actors scored (read 6%, decode 62%, infer 25%")
    assert "limited by decoding: decoding images took 50% of the time" in line


def test_run_without_work_has_no_timings():
    assert concluded(None, SCORED) is None


def test_a_step_that_is_taken_is_over():
    steps = StepClock()
    with steps.step("connect"):
        time.sleep(0.002)
    with steps.waiting_for_listing():
        time.sleep(0.002)
    steps.first_begun()
    steps.begin("workers")
    steps.first_begun()
    steps.first_begun()
    with steps.waiting_for_listing():
        time.sleep(0.002)
    taken = steps.take()
    assert list(taken.steps) == ["connect", "plan", "workers", "score"]
    assert taken.listing_s >= 0.002
    assert sum(taken.steps.values()) <= taken.seconds
    steps.end("score")
    assert steps.take().steps == {}


def test_receipts_of_an_actor_count_as_one_actor():
    seconds = WorkerSeconds()
    for actor in ("a", "b", "a"):
        seconds.add(actor, StageSeconds(decode=1), StageSeconds())
    assert seconds.timings(7) == RunTimings(images=7, actors=2, stages=StageSeconds(decode=3))

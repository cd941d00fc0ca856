"""The figures of a benchmark: ceilings, efficiency, hours, and the table."""

import json

import pytest

from jobs.benchmark.figures import Figures, NodeRates, table
from pneumonia_core.runs.outcome.timings import RunTimings, StageSeconds

TIMINGS = RunTimings(
    seconds=200.0,
    images=9_000,
    actors=3,
    stages=StageSeconds(read=3, decode=60, infer=210, idle=27),
    steps={"connect": 80.0, "score": 100.0},
)


def nodes(gpus: float = 0.0) -> list[NodeRates]:
    return [NodeRates("a" * 20, 16, gpus, 300, 100, 6_000), NodeRates("b" * 20, 8, gpus, 150, 50, 3_000)]


def test_cores_that_decode_and_compute_do_one_after_the_other():
    figures = Figures(nodes(), TIMINGS, "openvino", "float32", 0)
    assert figures.decode_images_per_s == 450
    assert figures.engine_images_per_s == 150
    assert figures.ceiling_images_per_s == pytest.approx(1 / (1 / 450 + 1 / 150))
    assert figures.end_to_end_images_per_s == 90
    assert figures.efficiency == pytest.approx(90 / 112.5)
    assert figures.cpus_per_gpu is None
    assert figures.hours_per_million == pytest.approx(1e6 / 90 / 3600)


def test_gpus_compute_while_cpus_decode():
    figures = Figures(nodes(gpus=1), TIMINGS, "tensorflow", "float16", 2)
    assert figures.ceiling_images_per_s == 150
    # One CPU decodes 450 / 24 images in a second, one GPU computes 75.
    assert figures.cpus_per_gpu == pytest.approx(4)


def test_json_and_table_say_what_limits_the_workers_not_the_start():
    values = json.loads(json.dumps(Figures(nodes(gpus=1), TIMINGS, "tensorflow", "float16", 2).as_json()))
    assert values["limit"] == "engine"
    assert values["actor_seconds"]["infer"] == 70
    assert values["node_hours_per_million"] == pytest.approx(2 * values["hours_per_million"], rel=0.01)
    assert [node["images"] for node in values["nodes"]] == [6_000, 3_000]
    lines = "\n".join(table(values))
    for part in ("limited by engine", "60%, end to end", "CPUs that would feed one GPU: 4.0", "aaaaaaaa"):
        assert part in lines, lines
    assert "more --images" not in lines
    values["actor_seconds"]["load"] = 30
    assert "engines for 23% of the run: give more --images" in "\n".join(table(values))

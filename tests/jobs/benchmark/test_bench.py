"""`pneumonia bench`: figures of a real run on a real cluster, and nothing left behind."""

import pytest

from jobs.benchmark.benchmark import BenchOptions, bench
from jobs.benchmark.place import temporary_place
from jobs.ray_runtime.resources import Node
from pneumonia_core.errors import InvalidInput


def test_a_cluster_is_measured_and_nothing_is_left_behind(ray_here, tiny_bundle, tmp_path, capsys):
    options = BenchOptions((), str(tiny_bundle.path), images=24, workdir=str(tmp_path))
    result = bench(options, measure_s=0.3)
    assert list(tmp_path.iterdir()) == []
    (node,) = result["nodes"]
    assert result["state"] == "done"
    assert result["images"] == node["images"] == 24
    assert node["cpus"] == 2
    assert min(result["decode_images_per_s"], result["engine_images_per_s"]) > 0
    assert result["ceiling_images_per_s"] < min(result["decode_images_per_s"], result["engine_images_per_s"])
    assert result["efficiency"] > 0
    assert result["hours_per_million"] > 0
    # The node declares a GPU, which no engine sees: the run computes on CPUs.
    assert result["cpus_per_gpu"] is None
    assert result["actor_seconds"]["decode"] > 0
    assert f"limited by {result['limit']}" in capsys.readouterr().out
    # The actors have gone, and their CPUs are free.
    assert not [each for each in ray_here.util.list_named_actors() if each.startswith("score-")]


def test_other_machines_need_a_place_that_they_reach(ray_here):
    others = [Node(4, 0, "x"), Node(4, 0, "y")]
    with pytest.raises(InvalidInput, match="2 nodes of the cluster") as caught, temporary_place(None, others):
        pass
    assert "--workdir" in caught.value.text

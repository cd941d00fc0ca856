"""On GPUs `auto` measures on a GPU, and takes no rate of the CPU beside it, nor of another card."""

import threading

import pytest

from jobs.ray_runtime.resources import Node, present_nodes
from jobs.scoring.execution.graph import ship_bundle
from jobs.scoring.execution.placement import PlacementOptions, choose_placement
from jobs.scoring.execution.rates.cluster_rates import RateSource, cluster_rates
from jobs.scoring.execution.rates.gpu_actors import GpuActors, settle_gpu_actors
from pneumonia_core.bundles.capabilities import Capabilities, measure_capabilities
from pneumonia_core.bundles.choice import EngineChoice
from pneumonia_core.bundles.rates.gpu_sharing import fewest_nearly_best
from pneumonia_core.bundles.rates.memory import (
    NodeKind,
    remember_actors,
    remember_rates,
    remembered_actors,
    remembered_rates,
)
from pneumonia_core.bundles.rates.workload import Workload
from pneumonia_core.storage.location import open_location

HALF, EXACT = (EngineChoice("tensorflow", precision, on_gpu=True) for precision in ("float16", "float32"))
ON_CPU = tuple(EngineChoice("openvino", precision, on_gpu=False) for precision in ("float32", "bfloat16"))


def test_rates_count_on_the_card_that_they_were_measured_on_alone(tiny_bundle, tmp_path):
    results = open_location(str(tmp_path))
    source = RateSource(results, lambda *engine: pytest.fail(str(engine)), Workload(20))
    nodes = [Node(16, 2, "with"), Node(16, 0, "without")]
    capabilities = {"with": Capabilities(gpus=((8, 0),) * 2, processor="Xeon", card="NVIDIA A100")}
    capabilities["without"] = Capabilities(processor="Xeon")
    placement = choose_placement(nodes, "gpu", PlacementOptions())

    def settle(card, choices):
        kind = NodeKind("Xeon", 16, 2, threads=1, card=card)
        rates = {choice: 900.0 if choice.precision == "float16" else 400.0 for choice in choices}
        remember_rates(results, tiny_bundle.model_id, {kind: rates})
        return cluster_rates(tiny_bundle, [HALF, EXACT], source, nodes, capabilities, placement)

    assert settle("", [EngineChoice("tensorflow", "float32", on_gpu=False)]) is None
    assert settle("NVIDIA L4", [HALF, EXACT]) is None
    found = settle("NVIDIA A100", [HALF, EXACT])
    # One actor on each of the two GPUs.
    assert (found.rates, found.nodes, found.origin) == ({HALF: 1800.0, EXACT: 800.0}, 1, "remembered")


@pytest.mark.parametrize(
    ("cpus", "rates", "images", "count", "why"),
    [
        pytest.param(
            16, (900.0, 1500.0, 1800.0), 20, 3,
            "3 actors on each GPU: with 1 all GPUs compute 1,800.0 images/s, with 2 3,000.0, with 3 3,600.0, "
            "as an earlier run measured", id="three",
        ),
        pytest.param(16, (900.0, 1500.0, 1520.0), 20, 2, "with 3 3,040.0, as ", id="two are enough"),
        pytest.param(16, (900.0,), 20, 1, "an earlier run measured; no second one opened", id="no memory"),
        pytest.param(4, (900.0, 1500.0, 1800.0), 20, 2, "2 3,000.0, as an", id="CPUs for two"),
        pytest.param(2, (900.0, 1500.0), 20, 1, "the CPUs of a node feed no second one", id="CPUs for one"),
        pytest.param(16, None, 20, 1, "nothing was measured (few images)", id="few images"),
        pytest.param(16, None, 9_000, 1, "(trying takes longer than it would save)", id="not enough images"),
    ],
)  # fmt: skip
def test_the_number_of_actors_on_a_gpu_is_what_they_computed_together(
    tiny_bundle, tmp_path, cpus, rates, images, count, why
):
    results = open_location(str(tmp_path))
    source = RateSource(results, lambda *engine: pytest.fail(str(engine)), Workload(images))
    nodes = [Node(cpus, 2, "with"), Node(8, 0, "without")]
    capabilities = {"with": Capabilities(gpus=((8, 0),) * 2, processor="Xeon", card="NVIDIA A100")}
    placement = choose_placement(nodes, "gpu", PlacementOptions())
    if rates:
        kind = NodeKind("Xeon", cpus, 2, threads=1, card="NVIDIA A100")
        other = {EXACT: (1.0, 2.0, 3.0)}
        remember_actors(results, tiny_bundle.model_id, {kind: {HALF: rates, **other}})
    settled = settle_gpu_actors(tiny_bundle, HALF, nodes, capabilities, placement, source)
    assert settled.count == count
    assert settled.reason.startswith(f"{count} actor{'s' * (count > 1)} on each GPU: ")
    assert why in settled.reason


def test_engines_are_measured_where_they_have_the_gpu_and_one_that_sees_none_has_no_rate(
    ray_here, tiny_bundle, tmp_path
):
    if measure_capabilities(look_for_gpus=True).gpus:
        pytest.skip("TensorFlow sees a GPU on this machine")
    results = open_location(str(tmp_path))
    (node,) = present_nodes()
    placement = choose_placement([node], "gpu", PlacementOptions(actor_gpus=0.5))
    capabilities = {node.node_id: Capabilities(gpus=((8, 0),), processor="Xeon", card="NVIDIA A100")}
    found = []

    def settle(choices):
        source = RateSource(results, lambda *engine: ship_bundle(tiny_bundle, *engine), Workload(50_000))
        found.append(cluster_rates(tiny_bundle, choices, source, [node], capabilities, placement))

    @ray_here.remote(num_cpus=0, num_gpus=0.5)
    class Other:
        def ready(self):
            return True

    # With half of it in use, the engine would not have it alone.
    other = Other.remote()
    ray_here.get(other.ready.remote())
    measuring = threading.Thread(target=settle, args=(ON_CPU,))
    measuring.start()
    measuring.join(timeout=5)
    assert measuring.is_alive()
    ray_here.kill(other)
    measuring.join(timeout=120)
    assert found.pop().rates[ON_CPU[0]] > 0

    settle((HALF, EXACT))
    assert found.pop() is None
    kinds = remembered_rates(results, tiny_bundle.model_id)
    assert {kind.card: set(rates) for kind, rates in kinds.items()} == {
        "": set(ON_CPU),
        "NVIDIA A100": {HALF, EXACT},
    }
    assert set(kinds[NodeKind("Xeon", node.cpus, node.gpus, 1, "NVIDIA A100")].values()) == {0.0}

    source = RateSource(results, lambda *engine: ship_bundle(tiny_bundle, *engine), Workload(50_000))
    alone = choose_placement([node], "gpu", PlacementOptions())
    settled = settle_gpu_actors(tiny_bundle, ON_CPU[0], [node], capabilities, alone, source)
    (shared,) = remembered_actors(results, tiny_bundle.model_id).values()
    # The node has a core for each of two.
    assert len(shared[ON_CPU[0]]) == 2
    assert all(rate > 0 for rate in shared[ON_CPU[0]])
    assert settled.count == fewest_nearly_best(shared[ON_CPU[0]])
    assert settled.reason.endswith(", measured now")
    # An engine that sees no GPU does not open there, and nothing is remembered of it.
    settled = settle_gpu_actors(tiny_bundle, HALF, [node], capabilities, alone, source)
    assert settled == GpuActors(1, "1 actor on each GPU: nothing was measured (no node could be measured)")
    assert len(remembered_actors(results, tiny_bundle.model_id)) == 1


def test_run_that_is_stopped_waits_for_no_gpu_and_remembers_nothing(ray_here, tiny_bundle, tmp_path):
    results = open_location(str(tmp_path))
    (node,) = present_nodes()
    placement = choose_placement([node], "gpu", PlacementOptions())
    capabilities = {node.node_id: Capabilities(gpus=((8, 0),), processor="Xeon", card="NVIDIA A100")}
    source = RateSource(
        results, lambda *engine: ship_bundle(tiny_bundle, *engine), Workload(50_000), lambda: True
    )
    assert cluster_rates(tiny_bundle, ON_CPU, source, [node], capabilities, placement) is None
    settled = settle_gpu_actors(tiny_bundle, ON_CPU[0], [node], capabilities, placement, source)
    assert settled.count == 1
    assert remembered_rates(results, tiny_bundle.model_id) == {}
    assert remembered_actors(results, tiny_bundle.model_id) == {}

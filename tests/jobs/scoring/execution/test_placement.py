"""Which actors and tasks each node of a cluster gets."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from jobs.ray_runtime.resources import Node
from jobs.scoring.execution.placement import Placement, PlacementOptions, choose_placement, seats
from pneumonia_core.errors import InvalidInput

ROUNDING = 0.01


def cluster(*cpus_and_gpus: tuple[float, float]) -> list[Node]:
    return [Node(cpus, gpus, f"node {number}") for number, (cpus, gpus) in enumerate(cpus_and_gpus)]


def cpu_nodes(*cpus: float) -> list[Node]:
    return cluster(*((each, 0) for each in cpus))


@pytest.mark.parametrize(
    ("cpus", "expected"),
    [
        (1, [1]),
        (2, [2]),
        (7, [7]),
        (8, [8]),
        (12, [6, 6]),
        (15, [7.5, 7.5]),
        (16, [8, 8]),
        (96, [8] * 12),
        (0.5, [0.5]),
        (0, []),
    ],
)
def test_actors_of_equal_share_use_every_cpu_of_a_node(cpus, expected):
    assert seats(cpus) == expected


def test_node_has_the_same_actors_whatever_the_others_are():
    nodes = cpu_nodes(1, 2, 7, 12, 15, 16, 96)
    placement = choose_placement(nodes, "cpu", PlacementOptions())
    assert [placement.seats(node) for node in nodes] == [seats(node.cpus) for node in nodes]
    assert sum(seat.cpus for seat in placement.seated(nodes)) == sum(node.cpus for node in nodes)


@pytest.mark.parametrize(
    ("cpus", "options", "expected", "least"),
    [
        pytest.param([2], {"actors": (2, 2)}, [[1, 1]], 2, id="more actors than usual share the cores"),
        pytest.param([16], {"actors": (3, 3)}, [[16 / 3] * 3], 3, id="equally"),
        pytest.param([4, 2], {"actors": (3, 5)}, [[2, 2], [2]], 3, id="on nodes of different sizes"),
        pytest.param([12, 2], {"actors": (1, 40)}, [[6, 6], [2]], 1, id="only the least number must fit"),
        pytest.param([1, 1], {"actors": (4, 4)}, [[1], [1]], 2, id="the rest waits for the cluster to grow"),
        pytest.param([7], {"actors": (20, 20)}, [[1] * 7], 7, id="no actor has less than a core"),
        pytest.param([16], {"actors": (1, 1)}, [[8]], 1, id="one actor where one is asked for"),
        pytest.param([16, 4], {"actors": (1, 3)}, [[8, 8], [4]], 1, id="no more than asked for"),
        pytest.param([8, 8, 8], {"actors": (1, 2)}, [[8], [8], []], 1, id="spread over the nodes"),
        pytest.param([4], {"actor_cpus": 1}, [[1] * 4], 1, id="cores as asked for"),
        pytest.param([7, 2], {"actor_cpus": 3}, [[3, 3], [2]], 1, id="as far as the node has them"),
        pytest.param([4], {"actor_cpus": 0.5}, [[0.5] * 8], 1, id="less than a core as asked for"),
        pytest.param([], {}, [], 1, id="no node yet"),
    ],
)
def test_actors_on_cpus(cpus, options, expected, least):
    nodes = cpu_nodes(*cpus)
    placement = choose_placement(nodes, "cpu", PlacementOptions(**options))
    seated = placement.seated(nodes)
    by_node = [[seat.cpus for seat in seated if seat.node_id == node.node_id] for node in nodes]
    assert by_node == [pytest.approx(each, abs=ROUNDING) for each in expected]
    assert (placement.least, placement.actor_gpus) == (least, 0)


def test_placement_made_before_the_first_node_holds_for_those_that_come():
    placement = choose_placement([], "cpu", PlacementOptions(actors=(2, 40)))
    assert len(placement.seated(cpu_nodes(15, 96, 1))) == 2 + 12 + 1
    assert len(placement.seated(cpu_nodes(*[16] * 40))) == 40
    gpu = choose_placement([], "gpu", PlacementOptions())
    assert gpu.seats(Node(8, 4)) == [1] * 4


CLUSTERS = [
    [(cpus, gpus)] for cpus in (1, 2, 7, 12, 15, 16, 96) for gpus in (1, 4, 8)
] + [
    [(16, 1)] * 4,
    [(96, 8), (16, 0), (2, 0)],
    [(1, 1), (96, 0)],
    [(12, 4), (7, 1)],
    [(2, 1), (15, 1), (96, 8)],
    [(1, 0), (2, 1)],
]  # fmt: skip
OPTIONS = [
    {},
    {"actors": (1, 40)},
    {"actors": (8, 8)},
    {"actors": (20, 20)},
    {"actor_gpus": 0.5},
    {"actor_gpus": 0.3, "actor_cpus": 1},
    {"actor_gpus": 1.0, "actors": (16, 16)},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("nodes", CLUSTERS, ids=str)
def test_on_gpus_every_actor_has_its_share_and_decoding_the_rest(nodes, options):
    nodes = cluster(*nodes)
    placement = choose_placement(nodes, "gpu", PlacementOptions(**options))
    assert placement.decode_cpus > 0
    for node in nodes:
        on_node = placement.seats(node)
        assert sum(on_node) <= node.cpus
        assert len(on_node) * placement.actor_gpus <= node.gpus
        assert bool(on_node) == bool(node.gpus)
    assert largest_demand(placement, nodes) <= sum(node.cpus for node in nodes) + 1e-6
    assert any(left_of(placement, node) >= placement.decode_cpus - 1e-6 for node in nodes)
    assert idle_cpus(placement, nodes) < 0.1 * sum(node.cpus for node in nodes)


def left_of(placement: Placement, node: Node) -> float:
    """The CPUs of a node that its actors do not have."""
    return node.cpus - sum(placement.seats(node))


def largest_demand(placement: Placement, nodes: Sequence[Node]) -> float:
    """The CPUs of all actors and of one task: where they are more than there are, Ray Data waits forever."""
    return sum(seat.cpus for seat in placement.seated(nodes)) + placement.decode_cpus


def idle_cpus(placement: Placement, nodes: Sequence[Node]) -> float:
    """The CPUs that have neither an actor nor a task when every node has as many as fit."""
    size = placement.decode_cpus
    return sum(
        left - size * math.floor(left / size + 1e-6) for left in (left_of(placement, node) for node in nodes)
    )


@pytest.mark.parametrize(
    ("gpus", "options", "actors", "share"),
    [
        pytest.param([1], {}, 1, 1, id="an actor for each GPU"),
        pytest.param([8], {}, 8, 1, id="also for many"),
        pytest.param([4], {"actors": (8, 8)}, 8, 0.5, id="more actors than GPUs share them"),
        pytest.param([4, 4], {"actors": (20, 20)}, 20, 1 / 3, id="in equal parts"),
        pytest.param([4], {"actors": (1, 40)}, 4, 1, id="the most is for a cluster that grows"),
        pytest.param([4], {"actors": (2, 2)}, 2, 1, id="fewer actors than GPUs"),
        pytest.param([1, 1], {"actor_gpus": 0.5}, 4, 0.5, id="a share as asked for"),
        pytest.param([2], {"actor_gpus": 0.3}, 6, 0.3, id="no actor has parts of two GPUs"),
        pytest.param([2], {"actor_gpus": 1.0, "actors": (4, 4)}, 2, 1, id="the rest waits for more GPUs"),
    ],
)
def test_gpus_and_their_actors(gpus, options, actors, share):
    nodes = cluster(*((16, each) for each in gpus))
    placement = choose_placement(nodes, "gpu", PlacementOptions(**options))
    assert len(placement.seated(nodes)) == actors
    assert placement.actor_gpus == pytest.approx(share, abs=ROUNDING)


@pytest.mark.parametrize(
    ("node", "actor_cpus", "fed"),
    [
        pytest.param((2, 1), None, 2, id="a core for each"),
        pytest.param((1, 1), None, 1, id="one core"),
        pytest.param((12, 8), None, 1, id="one core and a half for each GPU"),
        pytest.param((96, 8), None, 12, id="as many as cores"),
        pytest.param((16, 1), 4, 2, id="half of the cores decode"),
        pytest.param((16, 0), None, 1, id="no GPU"),
    ],
)
def test_actors_on_a_gpu_have_a_core_each_to_feed_it(node, actor_cpus, fed):
    placement = choose_placement(cluster((16, 1)), "gpu", PlacementOptions(actor_cpus=actor_cpus))
    assert placement.fed_on_gpu(*cluster(node)) == fed


def test_decoding_takes_the_cpus_it_is_given():
    placement = choose_placement(cluster((16, 1)), "gpu", PlacementOptions(decode_cpus=2))
    assert placement.decode_cpus == 2
    assert choose_placement(cluster((1, 1)), "gpu", PlacementOptions(decode_cpus=2)).decode_cpus == 0.75


def test_node_whose_gpus_no_engine_sees_has_no_actor():
    nodes = cluster((16, 1), (16, 1))
    placement = replace(choose_placement(nodes, "gpu", PlacementOptions()), blind=frozenset(["node 0"]))
    assert [seat.node_id for seat in placement.seated(nodes)] == ["node 1"]


def test_gpus_that_no_node_has_are_refused():
    with pytest.raises(InvalidInput, match="no node of the cluster has a GPU"):
        choose_placement(cpu_nodes(16, 16), "gpu", PlacementOptions())


def test_share_of_a_gpu_is_refused_where_the_engine_computes_on_cpus():
    with pytest.raises(InvalidInput, match=r"--actor-gpus 0\.5"):
        choose_placement(cluster((16, 1)), "cpu", PlacementOptions(actor_gpus=0.5))

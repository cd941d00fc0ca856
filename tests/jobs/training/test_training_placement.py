"""How many workers a training has, and what each reserves of the cluster."""

import pytest

from jobs.ray_runtime.resources import Node
from jobs.training.placement import TrainingPlacement, can_release_on, cpus_per_worker, plan_workers
from jobs.training.train import make_request
from pneumonia_core.errors import InvalidInput


@pytest.mark.parametrize(
    ("nodes", "workers", "cpus"),
    [
        ([1], 1, 0.5),
        ([1], 2, 0.25),
        ([2], 1, 1),
        ([2], 2, 0.5),
        ([4], 2, 1),
        ([8], 2, 3),
        ([16, 16, 16, 16], 4, 15),
        ([4, 64], 1, 64),
        ([4, 64], 2, 32),
        ([0.5], 1, 0.25),
    ],
)
def test_workers_leave_room_for_tasks_and_fit_on_the_nodes(nodes, workers, cpus):
    reserve = 1.0 if sum(nodes) >= 2 else min(0.5, sum(nodes) / 2)
    size = cpus_per_worker([Node(cpus) for cpus in nodes], workers, reserve)
    assert size == cpus
    assert size * workers <= sum(nodes) - reserve
    assert sum(node // size for node in nodes) >= workers


@pytest.mark.parametrize(
    ("nodes", "gpus", "workers", "each"),
    [
        ([0, 0], 0, 2, 0),
        ([1], 1, 1, 1),
        ([4], 4, 1, 4),
        ([8], 8, 1, 8),
        ([8], 4, 1, 4),
        ([0, 8], 8, 1, 8),
        ([1, 1], 2, 2, 1),
        ([4, 4], 8, 2, 4),
        ([4, 4], 4, 1, 4),
        ([8, 8], 16, 2, 8),
        ([4, 8], 12, 3, 4),
        ([1, 8], 9, 9, 1),
        ([1, 1, 4], 6, 6, 1),
    ],
)
def test_by_default_the_gpus_of_a_node_are_in_one_worker(nodes, gpus, workers, each):
    plan = plan_workers(None, gpus, 16 * max(gpus, len(nodes)), [Node(16, number) for number in nodes])
    assert (plan.count, plan.gpus, plan.replicas) == (workers, each, gpus or workers)


def test_fewer_workers_than_gpus_have_several_each():
    plan = plan_workers(2, 8, 64, [Node(64, 4), Node(64, 4)])
    assert (plan.count, plan.cpus, plan.gpus) == (2, 63, 4)


def test_as_many_of_the_nodes_train_as_share_the_batch_evenly():
    assert [plan_workers(None, 0, 64, [Node(8)] * count).count for count in (3, 5, 7, 8)] == [2, 4, 4, 8]


def test_workers_with_gpus_are_sized_for_the_nodes_that_have_them():
    plan = plan_workers(None, 2, 64, [Node(16), Node(16), Node(8, 1), Node(8, 1)])
    assert (plan.count, plan.cpus, plan.gpus) == (2, 8, 1)


def test_plans_that_cannot_be_say_what_to_change():
    with pytest.raises(InvalidInput, match="33"):
        plan_workers(3, 0, 32, [Node(8)])
    with pytest.raises(InvalidInput, match="--gpus 1"):
        plan_workers(None, 1, 32, [Node(8)])
    with pytest.raises(InvalidInput, match="--gpus 4"):
        plan_workers(2, 3, 32, [Node(8, 3)])
    with pytest.raises(InvalidInput, match="36"):
        plan_workers(2, 4, 34, [Node(8, 4)])
    with pytest.raises(InvalidInput, match=r"2, 2"):
        plan_workers(1, 4, 32, [Node(8, 2), Node(8, 2)])


def test_several_gpus_have_a_batch_each_at_the_rate_of_their_sum():
    recipes = [make_request("data", "models", gpus=gpus).recipe for gpus in (0, 1, 4)]
    assert [recipe.batch_size for recipe in recipes] == [32, 32, 128]
    assert recipes[2].peak_learning_rate == pytest.approx(2 * recipes[0].peak_learning_rate)
    assert make_request("data", "models", gpus=4, batch_size=32).recipe.batch_size == 32


@pytest.mark.parametrize(
    ("nodes", "here"),
    [
        ([("head", 2, 4)], True),
        ([("head", 2, 0)], True),
        ([("head", 8, 60), ("worker", 8, 64)], True),
        ([("head", 2, 64), ("worker", 8, 64)], False),
        ([("head", 8, 8), ("worker", 8, 64)], False),
        ([("worker", 8, 64)], False),
    ],
)
def test_the_bundle_is_made_on_the_head_only_where_it_is_as_large_as_a_workers_node(nodes, here):
    cluster = [Node(cpus, 0, name, memory * 1e9) for name, cpus, memory in nodes]
    placement = TrainingPlacement(1, 1 if len(nodes) == 1 else 6, 0, 1)
    assert can_release_on("head", cluster, placement) is here

"""Nodes that are requested by tasks which wait for them."""

import time

import pytest

from jobs.ray_runtime.growth import NodeRequest

# No node of the session's Ray is so large: the tasks wait.
LARGE = 64.0


@pytest.fixture
def gcs(ray_here):
    from ray._raylet import GcsClient

    return GcsClient(address=ray_here.get_runtime_context().gcs_address)


def waiting(gcs) -> dict[float, int]:
    """How many tasks wait for a node, by their CPUs: what an autoscaler reads."""
    demands = gcs.get_all_resource_usage(
        timeout=10
    ).resource_usage_data.resource_load_by_shape.resource_demands
    return {
        demand.shape["CPU"]: count
        for demand in demands
        if demand.shape.get("CPU", 0) > 2
        and (
            count := demand.num_ready_requests_queued
            + demand.num_infeasible_requests_queued
            + demand.backlog_size
        )
    }


def ask_until(request, gcs, count, cpus):
    """Ask as a run does, time and again, until as many tasks wait, and no others."""
    deadline = time.monotonic() + 20
    while waiting(gcs) != {cpus: count}:
        assert time.monotonic() < deadline, waiting(gcs)
        request.ask(count, cpus)
        time.sleep(0.5)


def test_a_request_replaces_the_one_before_and_leaves_nothing(gcs):
    with NodeRequest() as request:
        for count, cpus in ((3, LARGE), (5, LARGE), (1, LARGE), (2, LARGE / 2)):
            ask_until(request, gcs, count, cpus)
    deadline = time.monotonic() + 20
    while waiting(gcs):
        assert time.monotonic() < deadline, waiting(gcs)
        time.sleep(0.1)

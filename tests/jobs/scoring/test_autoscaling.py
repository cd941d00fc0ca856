"""Scoring on a cluster that Ray's autoscaler grows from nothing, and lets go."""

import signal
import time

import pytest
from support.autoscaling import autoscaling_cluster
from support.processes import kill_with_descendants
from support.runs_killed import check_equal, command, start

SLOWLY = "decode=sleep:0.3"


@pytest.fixture
def autoscaler():
    """The version of Ray's autoscaler."""
    return 1


@pytest.fixture
def cluster(ray_here, autoscaler, tmp_path):
    # The session's Ray has made the token that this cluster asks for.
    with autoscaling_cluster(tmp_path, autoscaler) as growing:
        growing.workers_do(SLOWLY)
        yield growing


@pytest.fixture
def night(archive, tiny_bundle, cluster, tmp_path):
    """Starts the command over the archive; ends it with the test."""
    started = []

    def begin(*options):
        arguments = command(archive, tiny_bundle, tmp_path / "r", *cluster.options, *options)
        started.append(start(arguments, RAY_AUTH_MODE="token"))
        return started[-1]

    yield begin
    for process in started:
        kill_with_descendants(process.pid)
        process.communicate()


def watch(process, cluster, chunks=None, timeout_s=120):
    """What was seen of the scoring actors, each time, until the run ends or so many chunks are done."""
    deadline = time.monotonic() + timeout_s
    seen = []
    while process.poll() is None and (chunks is None or cluster.chunks_done < chunks):
        assert time.monotonic() < deadline, "timed out"
        seen.append(cluster.scoring_actors)
        time.sleep(0.2)
    return seen


def ended(process, code):
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors


def wait_until_gone(cluster, timeout_s=40):
    """The autoscaler stops nodes that are idle and that no request is left for."""
    deadline = time.monotonic() + timeout_s
    while cluster.nodes:
        assert time.monotonic() < deadline, cluster.nodes
        time.sleep(0.3)


@pytest.mark.parametrize(
    "autoscaler", [pytest.param(1, marks=pytest.mark.soak), pytest.param(2, marks=pytest.mark.slow)]
)
def test_run_grows_the_cluster_from_nothing_uses_its_nodes_and_lets_them_go(
    undisturbed, cluster, night, tmp_path
):
    assert not cluster.nodes
    process = night()
    seen = watch(process, cluster)
    ended(process, 0)
    assert max(len({actor.node_id for actor in actors}) for actors in seen) >= 3
    check_equal(tmp_path / "r", undisturbed)
    wait_until_gone(cluster)


@pytest.mark.slow
def test_run_has_no_more_actors_than_it_may_and_lets_the_nodes_go_when_it_is_stopped(cluster, night):
    process = night("--actors", "1,2")
    seen = watch(process, cluster, chunks=8)
    process.send_signal(signal.SIGTERM)
    ended(process, 1)
    assert max(map(len, seen)) == 2
    wait_until_gone(cluster)


@pytest.mark.slow
def test_every_actor_of_the_gpu_shape_has_a_gpu_of_nodes_that_were_added_for_it(
    undisturbed, cluster, night, tmp_path
):
    # The engine is the slow part: otherwise one actor is enough.
    cluster.workers_do("part.before=sleep:4")
    process = night("--shape", "gpu")
    seen = watch(process, cluster)
    ended(process, 0)
    assert {actor.gpus for actors in seen for actor in actors} == {1.0}
    assert max(len({actor.node_id for actor in actors}) for actors in seen) == 2
    check_equal(tmp_path / "r", undisturbed)
    wait_until_gone(cluster)

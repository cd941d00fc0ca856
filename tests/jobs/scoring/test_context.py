"""What a scoring command holds while it runs: the queue that starts with Ray."""

import contextlib

import pytest
import ray

from jobs.scoring.context import ExecutionOptions, ScoringContext, start_ray
from jobs.scoring.execution.queue import Orders


@contextlib.contextmanager
def connected():
    with contextlib.ExitStack() as session:
        context = ScoringContext(None, None, ExecutionOptions(), None, session)
        start_ray(context)
        yield context


def test_queue_starts_with_ray_and_one_execution_takes_it(ray_here):
    with connected() as context:
        started = context.queue
        taken, another = context.take_queue(), context.take_queue()
        assert taken is started
        assert taken.exchange(Orders()).instance != another.exchange(Orders()).instance
        taken.kill()
        another.kill()


def test_queue_that_no_execution_takes_ends_with_the_command(ray_here):
    """Also in a process that keeps its connection."""
    with connected() as context:
        queue = context.queue
        queue.exchange(Orders())
    with pytest.raises(ray.exceptions.RayActorError):
        queue.exchange(Orders())

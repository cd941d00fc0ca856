"""An actor's engine: open before its first chunk."""

import time

import pytest
import ray

from jobs.scoring.execution.actors import ScoreChunk
from jobs.scoring.execution.engine_once import EngineOnce, EngineSpec
from jobs.scoring.execution.graph import ship_bundle
from jobs.scoring.execution.queue import start_queue
from pneumonia_core.errors import PneumoniaError


def test_actor_opens_its_engine_before_it_has_a_chunk(ray_here, tiny_bundle):
    spec = EngineSpec(ship_bundle(tiny_bundle, "openvino"), "openvino", "float32", gpu=False)
    queue = start_queue(spec)
    actor = ray.remote(num_cpus=0)(ScoreChunk).remote(queue)
    try:
        until = time.monotonic() + 60
        while not ray.get(actor.__ray_call__.remote(lambda chunks: chunks._engine._engine is not None)):
            assert time.monotonic() < until
            time.sleep(0.05)
    finally:
        ray.kill(actor)
        queue.kill()


def test_engine_that_could_not_be_opened_ahead_is_an_error_of_the_first_chunk(ray_here):
    once = EngineOnce(1)
    spec = EngineSpec(ray.put({"bundle.json": b"{"}), "openvino", "float32", gpu=False)
    once.open_ahead(spec)
    with pytest.raises(PneumoniaError):
        once.open(spec)

"""An actor's engine: open before its first chunk."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import ray

from jobs.scoring.execution.actors import ScoreChunk
from jobs.scoring.execution.engine_once import EngineOnce, EngineSpec
from jobs.scoring.execution.graph import ship_bundle
from jobs.scoring.execution.queue import start_queue
from pneumonia_core.bundles.engines import Scores
from pneumonia_core.errors import PneumoniaError


def test_actor_opens_its_engine_before_it_has_a_chunk(ray_here, tiny_bundle):
    spec = EngineSpec(ship_bundle(tiny_bundle, "openvino", "float32"), "openvino", "float32", gpu=False)
    queue = start_queue()
    queue.hold_engine(spec)
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
    spec = EngineSpec(
        ray.put({"bundle.json": np.frombuffer(b"{", np.uint8)}), "openvino", "float32", gpu=False
    )
    once.open_ahead(spec)
    with pytest.raises(PneumoniaError):
        once.open(spec)


class Counting:
    """An engine that counts the batches in it, and keeps the first until it has had `wanted` at once."""

    name, precision = "counting", "float32"

    def __init__(self, wanted):
        self._wanted = wanted
        self._changed = threading.Condition()
        self._inside = self.most = 0

    def __call__(self, images):
        with self._changed:
            self._inside += 1
            self.most = max(self.most, self._inside)
            self._changed.notify_all()
            # Gives the lock away, so that others come in, if they may.
            if not self._changed.wait_for(lambda: self.most >= self._wanted, timeout=10):
                self._wanted = 0
            self._changed.wait(timeout=0.01)
            self._inside -= 1
        return Scores(np.ones((len(images), 3), np.float32), None)


@pytest.mark.parametrize(("gpu", "at_once"), [(True, 2), (False, 1)])
def test_actor_with_a_gpu_sends_the_next_batch_there_while_one_is_computed(gpu, at_once):
    """And never a third. On CPUs one batch has all the threads."""
    once = EngineOnce(1)
    # Opened: there is no GPU here to open an engine on.
    once._engine = engine = Counting(at_once)
    spec = EngineSpec(None, "counting", "float32", gpu)

    def score_chunk(_):
        with once.scorer(spec, isolated=False) as scorer:
            return [scorer(np.zeros((2, 8, 8), np.uint8), ["a", "b"]).rejections for _ in range(3)]

    with ThreadPoolExecutor(4) as chunks:
        assert list(chunks.map(score_chunk, range(4))) == [[{}] * 3] * 4
    assert engine.most == at_once


def test_shipped_files_are_read_where_ray_keeps_them(ray_here, tiny_bundle):
    """Arrays that Ray's object store holds are not copied and cannot be written."""
    files = ray_here.get(ship_bundle(tiny_bundle, "openvino", "float32"))
    weights = files["openvino/model.bin"]
    assert weights.tobytes() == (tiny_bundle.path / "openvino" / "model.bin").read_bytes()
    assert not weights.flags.owndata
    assert not weights.flags.writeable

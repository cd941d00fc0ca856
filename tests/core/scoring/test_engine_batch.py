"""An engine that raises: the image that it raises on alone is rejected, and no image where it raises on
all."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pytest

from pneumonia_core.bundles.engines import Scores
from pneumonia_core.errors import PneumoniaError
from pneumonia_core.scoring.engine_batch import batches_at_once, in_this_process

URIS = [f"file:///{number}.png" for number in range(4)]
PIXELS = np.arange(1, 5, dtype=np.uint8)[:, None, None] * np.ones((1, 32, 32), np.uint8)


@dataclass
class Raising:
    """An engine that raises on batches with an image of one of these greys."""

    greys: set[int]
    name: str = "raising"
    precision: str = "float32"
    batches: list[int] = field(default_factory=list)

    def __call__(self, images: np.ndarray) -> Scores:
        self.batches.append(len(images))
        if self.greys & set(np.unique(images).tolist()):
            raise RuntimeError("out of order")
        return Scores(np.full((len(images), 3), images.mean((1, 2))[:, None], np.float32), None)


def test_image_that_the_engine_raises_on_costs_itself_alone():
    scored = in_this_process(Raising({3}), threading.Semaphore(1))(PIXELS, URIS)
    assert {n: rejection.reason for n, rejection in scored.rejections.items()} == {2: "engine_error"}
    np.testing.assert_array_equal(scored.scores.probabilities[:, 0], [1, 2, np.nan, 4])


def test_last_image_of_a_chunk_may_be_the_bad_one():
    scored = in_this_process(Raising({1}), threading.Semaphore(1))(PIXELS[:1], URIS[:1])
    assert scored.rejections.keys() == {0}


def test_engine_that_raises_on_all_is_found_out_at_the_first_image():
    engine = Raising({0, 1, 2, 3, 4})
    with pytest.raises(PneumoniaError, match="every image"):
        in_this_process(engine, threading.Semaphore(1))(PIXELS, URIS)
    assert engine.batches == [4, 1, 1]


def test_engine_that_does_not_raise_scores_a_batch_at_once():
    engine = Raising(set())
    in_this_process(engine, threading.Semaphore(1))(PIXELS, URIS)
    assert engine.batches == [4]


@dataclass
class Meeting:
    """An engine that gives no scores before `batches` batches are in it at once."""

    batches: threading.Barrier
    name: str = "meeting"
    precision: str = "float32"

    def __call__(self, images: np.ndarray) -> Scores:
        self.batches.wait(timeout=20)
        return Scores(np.ones((len(images), 3), np.float32), None)


def test_next_batch_is_on_its_way_to_a_gpu_while_it_computes_one():
    assert batches_at_once(gpu=False) == 1
    turns = threading.BoundedSemaphore(batches_at_once(gpu=True))
    scorer = in_this_process(Meeting(threading.Barrier(2)), turns)
    with ThreadPoolExecutor(2) as chunks:
        scored = list(chunks.map(lambda _: scorer(PIXELS, URIS), range(2)))
    assert [batch.rejections for batch in scored] == [{}, {}]

"""The clock of a worker: its seconds by stage add up to its life, whatever its threads do at once."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pneumonia_core.archives.entries import FetchedImage, ImageRef
from pneumonia_core.imaging.contract import Decoded
from pneumonia_core.phantoms.data_sets import write_archive
from pneumonia_core.scoring.engine_batch import BatchScorer
from pneumonia_core.scoring.isolation import decode_all
from pneumonia_core.scoring.stage_clock import StageClock, TimedReaders, timed_decode, timed_scorer


def test_seconds_add_up_to_the_life_and_none_is_negative():
    clock = StageClock(2)
    with clock.at("load"):
        began = time.perf_counter()

    def work(stage):
        for _ in range(20):
            with clock.at(stage):
                time.sleep(0.001)

    threads = [threading.Thread(target=work, args=(s,)) for s in ("read", "read", "decode", "infer", "write")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    time.sleep(0.02)
    seconds = clock.take()
    life = time.perf_counter() - began
    assert seconds.total == pytest.approx(life, abs=0.01)
    assert min(vars(seconds).values()) >= 0
    assert seconds.idle >= 0.015
    assert clock.take().total < 0.01


def test_life_begins_with_the_first_stage():
    clock = StageClock(1)
    time.sleep(0.03)
    assert clock.take().total == 0
    with clock.at("write"):
        pass
    assert clock.take().total < 0.03


def test_cores_that_compute_share_a_second_and_threads_that_wait_have_none_of_it():
    clock = StageClock(4)
    with clock.at("infer"), clock.at("infer"), clock.at("decode"), clock.at("decode"), clock.at("read"):
        time.sleep(0.03)
    seconds = clock.take()
    # The engine has four threads and one batch, two threads decode.
    assert seconds.infer == pytest.approx(2 * seconds.decode, rel=0.05)
    assert seconds.read < 0.001


def test_files_are_read_before_they_are_decoded_and_each_counts_as_what_it_is(tmp_path):
    write_archive(tmp_path, 2)
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    refs = [ImageRef(f"file://{path}") for path in [*files, tmp_path / "absent.jpeg"]]
    clock = StageClock(1)
    decoded = decode_all(refs, 32, 1, isolated=False, clock=clock)
    assert [each.rejection and each.rejection.reason for each in decoded] == [None, None, "not_found"]
    for timed, plain in zip(decoded, decode_all(refs, 32, 1, isolated=False), strict=True):
        assert (timed.source, timed.rejection) == (plain.source, plain.rejection)
        np.testing.assert_array_equal(timed.pixels, plain.pixels)
    seconds = clock.take()
    assert seconds.read > 0
    assert seconds.decode > seconds.read


def test_threads_that_read_ahead_count_as_reading():
    clock = StageClock(1)
    with ThreadPoolExecutor(4) as threads:
        readers = TimedReaders(threads, clock)
        for work in [readers.submit(time.sleep, 0.01) for _ in range(4)]:
            work.result()
    assert 0.009 <= clock.take().read < 0.04


def test_isolated_decoding_reads_in_its_child():
    asked = []

    def decode(image, size):
        asked.append(image.content)
        return Decoded.rejected("empty", "")

    clock = StageClock(1)
    timed_decode(decode, clock, isolated=True)(FetchedImage(ImageRef("file:///x.jpeg")), 32)
    assert asked == [None]


def test_an_engine_that_raises_does_not_stay_at_work():
    clock = StageClock(1)

    def attempt(pixels, uris):
        raise RuntimeError

    with pytest.raises(RuntimeError):
        timed_scorer(BatchScorer("e", attempt), clock)(np.zeros((1, 8, 8), np.uint8), ["a"])
    clock.take()
    time.sleep(0.01)
    assert clock.take().infer == 0

"""The journal of a chunk: which image is poison, and that giving a chunk up does not block it forever."""

import pytest

from pneumonia_core.errors import PneumoniaError, Remedy
from pneumonia_core.runs.crash_journal import MAX_ATTEMPTS, CrashJournal
from pneumonia_core.storage.location import open_location


def test_image_on_which_a_retry_died_is_poison(tmp_path):
    folder = open_location(str(tmp_path))
    assert not CrashJournal(folder, "score", 0).is_retry
    second = CrashJournal(folder, "score", 0)
    second.record("image", 7)
    assert CrashJournal(folder, "score", 0).poison == {7}


def test_batch_on_which_a_retry_died_is_found_by_any_of_its_images(tmp_path):
    folder = open_location(str(tmp_path))
    CrashJournal(folder, "score", 0)
    CrashJournal(folder, "score", 0).record("batch", 4)
    third = CrashJournal(folder, "score", 0)
    assert third.killed_in([4, 5, 6])
    assert not third.killed_in([0, 1, 2])
    assert not third.poison


def test_chunk_that_no_worker_survives_is_given_up_and_may_be_tried_again(tmp_path):
    folder = open_location(str(tmp_path))
    for _ in range(MAX_ATTEMPTS):
        CrashJournal(folder, "score", 0)
    with pytest.raises(PneumoniaError, match="hunk 0") as raised:
        CrashJournal(folder, "score", 0)
    assert raised.value.remedy == Remedy.FEWER_ACTORS
    assert CrashJournal(folder, "score", 0).attempts == 0


def test_finished_chunk_leaves_nothing(tmp_path):
    folder = open_location(str(tmp_path))
    CrashJournal(folder, "score", 0)
    CrashJournal(folder, "score", 0).finish()
    assert not list((tmp_path / "begun").iterdir())


def test_file_without_content_only_counts_as_an_attempt(tmp_path):
    """A machine that lost its power may leave it so."""
    folder = open_location(str(tmp_path))
    CrashJournal(folder, "chunk", 7)
    (file,) = (tmp_path / "begun").iterdir()
    file.write_bytes(b"")
    second = CrashJournal(folder, "chunk", 7)
    assert second.is_retry
    assert not second.poison

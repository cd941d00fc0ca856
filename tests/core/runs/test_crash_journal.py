"""The trail of a chunk: who died on it, and that giving up does not block it for ever."""

import pytest

from pneumonia_core.errors import PneumoniaError
from pneumonia_core.runs.crash_journal import IMAGE, MAX_BEGINNINGS, CrashJournal
from pneumonia_core.storage.location import open_location


def test_image_on_which_a_careful_worker_died_is_to_blame(tmp_path):
    folder = open_location(str(tmp_path))
    assert not CrashJournal(folder, "score", 0).careful
    second = CrashJournal(folder, "score", 0)
    second.record(IMAGE, 7)
    assert CrashJournal(folder, "score", 0).blamed == {7}


def test_chunk_that_no_worker_survives_is_given_up_and_may_be_begun_again(tmp_path):
    folder = open_location(str(tmp_path))
    for _ in range(MAX_BEGINNINGS):
        CrashJournal(folder, "score", 0)
    with pytest.raises(PneumoniaError, match="short of memory"):
        CrashJournal(folder, "score", 0)
    assert CrashJournal(folder, "score", 0).beginnings == 0


def test_finished_chunk_leaves_nothing(tmp_path):
    folder = open_location(str(tmp_path))
    CrashJournal(folder, "score", 0)
    CrashJournal(folder, "score", 0).finish()
    assert not list((tmp_path / "begun").iterdir())


def test_mark_without_content_only_says_that_the_chunk_was_begun(tmp_path):
    """A machine that lost its power may leave it so."""
    place = open_location(str(tmp_path))
    CrashJournal(place, "chunk", 7)
    (mark,) = (tmp_path / "begun").iterdir()
    mark.write_bytes(b"")
    second = CrashJournal(place, "chunk", 7)
    assert second.careful
    assert not second.blamed

"""The journal of a chunk: which attempts end without a word, and that giving a chunk up does not block it
forever."""

import json

import pytest

from pneumonia_core.errors import PneumoniaError, Remedy
from pneumonia_core.runs.crash_journal import MAX_CRASHES, CrashJournal
from pneumonia_core.storage.location import open_location


@pytest.fixture
def folder(tmp_path):
    return open_location(str(tmp_path))


def test_attempt_after_one_that_ended_without_a_word_is_a_retry(folder):
    assert not CrashJournal(folder, "score", 0, "a").is_retry
    assert CrashJournal(folder, "score", 0, "b").is_retry
    assert not CrashJournal(folder, "score", 1, "b").is_retry
    assert not CrashJournal(folder, "decode", 0, "b").is_retry


def test_attempt_that_ends_with_an_exception_is_not_held_against_its_chunk(folder):
    with pytest.raises(OSError, match="no space"), CrashJournal(folder, "score", 0, "a"):
        raise OSError("no space")
    assert not CrashJournal(folder, "score", 0, "a").is_retry


def test_chunk_that_no_worker_survives_is_given_up_and_may_be_tried_again(folder):
    for number in range(MAX_CRASHES + 2):
        CrashJournal(folder, "score", 0, f"node {number % 3}")
    with pytest.raises(PneumoniaError, match="hunk 0") as raised:
        CrashJournal(folder, "score", 0, "node 1")
    assert raised.value.remedy == Remedy.FEWER_ACTORS
    assert CrashJournal(folder, "score", 0, "node 1").attempts == 0


def test_lost_nodes_give_no_chunk_up(folder):
    for number in range(3 * MAX_CRASHES):
        last = CrashJournal(folder, "score", 0, f"node {number}")
    assert last.attempts == 3 * MAX_CRASHES - 1


def test_finished_chunk_leaves_nothing(folder, tmp_path):
    CrashJournal(folder, "score", 0, "a")
    CrashJournal(folder, "score", 0, "a").finish()
    assert not list((tmp_path / "begun").iterdir())


@pytest.mark.parametrize("content", [b"", b"[]", json.dumps([["batch", 4], ["image", 4]]).encode()])
def test_file_of_an_earlier_version_or_without_content_is_an_attempt(folder, tmp_path, content):
    """A machine that lost its power may leave a file without content."""
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "00000007-chunk.0000.json").write_bytes(content)
    assert CrashJournal(folder, "chunk", 7, "a").attempts == 1

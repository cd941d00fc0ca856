"""Questions to the table: its models, its images by archive, its newest row."""

import datetime

import pytest
from support.table_rows import night

from pneumonia_core.errors import PneumoniaError
from pneumonia_core.results.table import open_table
from pneumonia_core.results.table_view import TableView
from pneumonia_core.storage.location import open_location


@pytest.fixture
def results(tmp_path):
    return open_location(str(tmp_path / "results"))


def test_empty_table_knows_nothing(results):
    view = TableView(open_table(results))
    assert view.is_empty
    assert view.version == 0
    assert not view.knows_model("m")
    assert view.newest_row() is None
    assert view.known_images(["file:///a"]) == {}


def test_images_are_counted_once_for_each_archive(results):
    night(results, 1, ("a", "1"), ("a", "2"), ("it's", "1"))
    night(results, 2, ("a", "1"), ("b", "1"))
    view = TableView(open_table(results))
    known = view.known_images(["file:///it's", "file:///a", "file:///away"])
    assert known == {"file:///it's": 1, "file:///a": 2}
    assert view.known_images([]) == {}


def test_newest_row_is_the_latest_whatever_the_order_of_commits(results):
    for hour in (3, 5, 4):
        night(results, hour, ("a", "1"))
    newest = TableView(open_table(results)).newest_row()
    assert newest == datetime.datetime(2026, 11, 1, 5, tzinfo=datetime.UTC)


def test_model_is_known_by_its_rows(results):
    night(results, 1, ("a", "1"), model="it's m")
    view = TableView(open_table(results))
    assert view.knows_model("it's m")
    assert not view.knows_model("m")


def test_table_whose_file_was_removed_says_which(results, tmp_path):
    night(results, 1, ("a", "1"))
    (file,) = (tmp_path / "results" / "scores").rglob("*.parquet")
    view = TableView(open_table(results))
    file.unlink()
    for question in (
        view.newest_row,
        lambda: view.knows_model("m"),
        lambda: view.known_images(["file:///a"]),
    ):
        with pytest.raises(PneumoniaError, match=file.name):
            question()

"""The table where other programs, or names, come between."""

import json

import pytest

from pneumonia_core.errors import InvalidInput
from pneumonia_core.results.delta_errors import reading_error_text
from pneumonia_core.results.table import find_table, open_table, scan
from pneumonia_core.storage.location import open_location


@pytest.mark.parametrize("name", ["a%20b", "a\\b"])
def test_results_whose_name_deltalake_takes_for_another_are_refused(tmp_path, name):
    (tmp_path / "a b").mkdir()
    open_table(open_location(str(tmp_path / "a b")))
    with pytest.raises(InvalidInput, match="backslash"):
        open_table(open_location(str(tmp_path / name)))
    assert [path.name for path in tmp_path.iterdir()] == ["a b"]


@pytest.mark.parametrize("name", ["a b", "100%", "h#x", "q?x=1", "ü", "a'b", "[x]*"])
def test_results_of_other_names_are_created_and_found(tmp_path, name):
    location = open_location(str(tmp_path / name))
    assert find_table(location) is None
    open_table(location)
    found = find_table(location)
    assert found
    assert scan(found).count_rows() == 0


def test_table_with_deletion_vectors_is_refused_and_says_so(tmp_path):
    location = open_location(str(tmp_path))
    open_table(location)
    feature = {"readerFeatures": ["deletionVectors"], "writerFeatures": ["deletionVectors"]}
    protocol = {"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, **feature}}
    (tmp_path / "scores" / "_delta_log" / f"{1:020d}.json").write_text(json.dumps(protocol))
    with pytest.raises(InvalidInput, match="deletionVectors"):
        scan(open_table(location))


def test_missing_data_file_is_named():
    error = OSError(
        "Object at location /r/scores/a.parquet not found\n  No such file or directory (os error 2)"
    )
    assert "/r/scores/a.parquet is gone" in reading_error_text(error)

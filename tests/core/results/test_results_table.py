"""The table where other programs, or names, come between."""

import errno
import json
import os

import boto3
import pytest
from deltalake import DeltaTable, Field, Schema
from deltalake.schema import PrimitiveType
from support.buckets import BUCKET, Proxy, s3_server, using
from support.scoring import commit_as_scored

from pneumonia_core.errors import InvalidInput, Remedy
from pneumonia_core.phantoms.data_sets import write_archive
from pneumonia_core.results.delta_errors import reading_error_text
from pneumonia_core.results.latest import NOTHING_GONE, write_latest
from pneumonia_core.results.schema import ADDED_COLUMNS, SCHEMA
from pneumonia_core.results.table import add_missing_columns, find_table, open_table, scan
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


def test_table_whose_creation_was_never_answered_is_found():
    with s3_server() as endpoint, Proxy(endpoint) as proxy, using(proxy.endpoint):
        boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket=BUCKET)
        proxy.fail(r"^PUT .*_delta_log/0+\.json", most=1, always_cut=True)
        table = open_table(open_location(f"s3://{BUCKET}/results"))
        assert (proxy.injected, table.version()) == (1, 0)


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP])
def test_disk_without_hard_links_is_told(tmp_path, monkeypatch, number):
    def link(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(InvalidInput, match=r"no hard links.*not on CIFS") as raised:
        open_table(open_location(str(tmp_path / "r")))
    assert raised.value.remedy is Remedy.OTHER_RESULTS
    assert not list((tmp_path / "r" / "scores").iterdir())


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


def earlier_table(folder, *more: Field) -> None:
    """A table as the first version made it, with further columns that it carried over."""
    fields = [field for field in SCHEMA.fields if field.name not in ADDED_COLUMNS]
    DeltaTable.create(str(folder / "scores"), Schema([*fields, *more]), partition_by=["run_date"])


def test_table_of_an_earlier_version_gets_the_columns_that_it_lacks(tmp_path):
    earlier_table(tmp_path, Field("site", PrimitiveType("string")))
    location = open_location(str(tmp_path))
    before = [field.name for field in open_table(location).schema().fields]
    table = add_missing_columns(location, ["site", "study"])
    assert [field.name for field in table.schema().fields] == [*before, *ADDED_COLUMNS, "study"]
    added = next(field for field in table.schema().fields if field.name == "precision")
    assert added.nullable
    assert "bfloat16" in added.metadata["comment"]
    assert add_missing_columns(location, ["site", "study"]).version() == table.version()


def test_table_whose_column_has_another_type_is_refused(tmp_path):
    earlier_table(tmp_path, Field("precision", PrimitiveType("double")))
    with pytest.raises(InvalidInput, match="other columns"):
        open_table(open_location(str(tmp_path)))


def test_columns_are_known_by_name_in_any_order(tmp_path):
    """Another program has written the table again, and a later version has added a column."""
    later = Field("added_later", PrimitiveType("double"))
    fields = [later, *reversed(SCHEMA.fields)]
    DeltaTable.create(str(tmp_path / "r" / "scores"), Schema(fields), partition_by=["run_date"])
    write_archive(tmp_path / "archive", 2, seed=1)
    commit_as_scored(tmp_path / "r", tmp_path / "archive", "m")
    location = open_location(str(tmp_path / "r"))
    assert add_missing_columns(location, []).version() == 1
    table = scan(open_table(location)).to_table()
    assert table["model_id"].to_pylist() == ["m", "m"]
    assert table["added_later"].null_count == 2
    assert write_latest(open_table(location), NOTHING_GONE, None).counts.total() == 0


@pytest.mark.parametrize("change", ["missing", "other type", "not nullable", "other partition"])
def test_table_with_other_columns_is_refused(tmp_path, change):
    fields = {field.name: field for field in SCHEMA.fields}
    if change == "missing":
        del fields["finding"]
    elif change == "other type":
        fields["finding"] = Field("finding", PrimitiveType("long"))
    elif change == "not nullable":
        fields["more"] = Field("more", PrimitiveType("string"), nullable=False)
    partition = "archive" if change == "other partition" else "run_date"
    schema = Schema(list(fields.values()))
    DeltaTable.create(str(tmp_path / "scores"), schema, partition_by=[partition])
    with pytest.raises(InvalidInput, match="other columns"):
        open_table(open_location(str(tmp_path)))

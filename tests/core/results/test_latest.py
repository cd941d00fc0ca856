"""The newest row of each live image, of one model."""

from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.table_rows import night

from pneumonia_core.errors import InvalidInput
from pneumonia_core.results.latest import GONE_SCHEMA, NOTHING_GONE, Gone, write_latest
from pneumonia_core.results.table import open_table
from pneumonia_core.storage.location import open_location


@pytest.fixture
def results(tmp_path):
    """Two models and a rollback: `c` came under the first, `d` under the second, `b` went at last."""
    results = open_location(str(tmp_path / "results"))
    night(results, 1, ("in", "a"), ("in", "b"), ("in", "c"), model="one", finding="normal")
    night(results, 2, ("in", "a"), ("in", "b"), ("in", "d"), model="two", finding="viral")
    night(results, 3, ("in", "e"), model="one", finding="normal")
    return results


@pytest.fixture
def gone(tmp_path):
    table = pa.table([["file:///in/b"], ["file:///in"]], schema=GONE_SCHEMA)
    pq.write_table(table, tmp_path / "gone.parquet")
    return Gone({"file:///in": open_location(str(tmp_path / "gone.parquet"))})


@pytest.mark.parametrize(
    ("model", "default", "shown", "names", "others"),
    [
        ("two", None, "two", "ad", {"one": 2}),
        ("one", "two", "one", "ace", {"two": 1}),
        (None, "two", "two", "ad", {"one": 2}),
        (None, None, "one", "ace", {"two": 1}),
        (None, "never used", "one", "ace", {"two": 1}),
    ],
)
def test_rows_of_two_models_are_not_mixed(results, gone, tmp_path, model, default, shown, names, others):
    output = tmp_path / "latest.parquet"
    latest = write_latest(open_table(results), gone, open_location(str(output)), model, default)
    rows = pq.read_table(output).to_pylist()
    assert [row["image_uri"] for row in rows] == [f"file:///in/{name}" for name in names]
    assert {row["model_id"] for row in rows} == {shown} == {latest.model_id}
    assert latest.of_other_models == others
    assert latest.counts == Counter({"normal" if shown == "one" else "viral": len(names)})


def test_model_without_a_row_is_refused_and_those_of_the_table_are_named(results):
    with pytest.raises(InvalidInput, match=r"no row of the model three. It has rows of one, two\."):
        write_latest(open_table(results), NOTHING_GONE, None, "three")


def test_table_without_rows_has_no_latest(tmp_path):
    latest = write_latest(open_table(open_location(str(tmp_path))), NOTHING_GONE, None)
    assert (latest.model_id, latest.counts.total(), latest.of_other_models) == (None, 0, {})


def test_image_that_has_come_back_is_live_again(results, gone):
    back = pa.table({"image_uri": ["file:///in/b"]})
    counts = [
        write_latest(open_table(results), Gone(gone.lists, listed), None, "one").counts.total()
        for listed in (None, back.to_reader, back.slice(0, 0).to_reader)
    ]
    assert counts == [3, 4, 3]

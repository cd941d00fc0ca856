"""Planning in shards: however many they are, every image has one row, one number and one place in a chunk."""

import datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from pneumonia_core.archives.lister import LISTED_SCHEMA
from pneumonia_core.errors import PneumoniaError, Remedy
from pneumonia_core.results.schema import FILE_SCHEMA
from pneumonia_core.results.table import open_table
from pneumonia_core.results.table_view import TableView
from pneumonia_core.runs.inventory import check_inventory, read_chunk
from pneumonia_core.runs.planner import Planner, PlanningRules
from pneumonia_core.storage.location import open_location

# The version that a manifest's listing gives a missing image.
ABSENT = "absent"


@pytest.fixture
def run(tmp_path):
    (tmp_path / "run").mkdir()
    return open_location(str(tmp_path / "run"))


@pytest.fixture
def planner(tmp_path, run):
    """A planner of small shards, for an empty table."""
    with Planner(run, view_of(tmp_path), PlanningRules("m"), segments_per_shard=2) as planner:
        yield planner


def view_of(tmp_path):
    """An empty table."""
    return TableView(open_table(open_location(str(tmp_path / "results"))))


def segment(folder, numbers: range):
    """The lister's segment of the images with these numbers, which are also their positions."""
    count = len(numbers)
    columns = {
        "position": list(numbers),
        "image_uri": [f"file:///archive/{number:04d}.jpeg" for number in numbers],
        "image_version": ["1-1"] * count,
        "size_bytes": [1] * count,
        "archive": ["file:///archive"] * count,
    }
    arrays = [pa.array(columns.get(field.name, [None] * count), field.type) for field in LISTED_SCHEMA]
    path = folder / f"{numbers.start:04d}.parquet"
    pq.write_table(pa.Table.from_arrays(arrays, schema=LISTED_SCHEMA), path)
    return path


def rows_of(run, shards):
    refs = [ref for shard in shards for ref in shard.chunk_refs()]
    assert [ref.chunk for ref in refs] == list(range(len(refs)))
    tables = [read_chunk(run, ref) for ref in refs]
    assert [table.num_rows for table in tables] == [ref.rows for ref in refs]
    whole = pa.concat_tables(tables)
    return whole["row_id"].to_pylist(), whole["image_uri"].to_pylist()


def test_every_image_is_once_in_order_in_the_chunks_of_several_shards(planner, run, tmp_path):
    segments = [segment(tmp_path, range(start, start + 50)) for start in range(0, 250, 50)]
    shards = planner.plan(segments, [], 1, relisted=False)
    assert [shard.listed for shard in shards] == [100, 100, 50]
    assert [len({ref.file for ref in shard.chunk_refs()}) for shard in shards] == [2, 2, 1]
    numbers, uris = rows_of(run, shards)
    assert numbers == list(range(250))
    assert uris == [f"file:///archive/{number:04d}.jpeg" for number in range(250)]
    check_inventory(run, shards)


def test_relisted_images_are_passed_over_and_the_new_ones_keep_their_order(planner, run, tmp_path):
    first = planner.plan([segment(tmp_path, range(5, 105))], [], 1, relisted=False)
    segments = [segment(tmp_path, range(start, start + 50)) for start in (0, 50, 100)]
    again = planner.plan(segments, first, 1, relisted=True)
    numbers, uris = rows_of(run, [*first, *again])
    assert numbers == list(range(150))
    expected = [*range(5, 105), *range(5), *range(105, 150)]
    assert uris == [f"file:///archive/{number:04d}.jpeg" for number in expected]
    check_inventory(run, [*first, *again])


def test_limit_counts_over_shards(run, tmp_path):
    segments = [segment(tmp_path, range(start, start + 10)) for start in range(0, 50, 10)]
    with Planner(run, view_of(tmp_path), PlanningRules("m", limit=25), segments_per_shard=2) as planner:
        shards = planner.plan(segments, [], 4, relisted=False)
    assert [(shard.to_score, shard.deferred) for shard in shards] == [(20, 0), (5, 15), (0, 10)]
    assert len(rows_of(run, shards)[0]) == 25


def row(uri, version, attempt, hour, reason=None):
    """A row of the table: scored, or rejected for a reason."""
    values = {
        "image_uri": uri,
        "image_version": version,
        "archive": "file:///archive",
        "status": "scored" if reason is None else "rejected",
        "reject_reason": reason,
        "attempt": attempt,
        "engine": "tensorflow",
        "model_id": "m",
        "run_id": "r",
        "scored_at": datetime.datetime(2026, 11, 1, hour, tzinfo=datetime.UTC),
    }
    return {name: values.get(name) for name in FILE_SCHEMA.names}


URI = "file:///archive/0000.jpeg"


def append(tmp_path, rows) -> TableView:
    """The table with these rows as well."""
    results = open_location(str(tmp_path / "results"))
    known = pa.Table.from_pylist(rows, FILE_SCHEMA)
    dates = pa.array([datetime.date(2026, 11, 1)] * len(rows))
    write_deltalake(open_table(results), known.append_column("run_date", dates), mode="append")
    return TableView(open_table(results))


@pytest.mark.parametrize(
    ("nights", "attempt"),
    [
        ([("1-1", 1, None)], None),
        ([("1-1", 1, None), (ABSENT, 1, "not_found")], 2),
        ([(ABSENT, 1, "not_found"), ("1-1", 1, None)], None),
        ([("1-1", 1, "too_small"), (ABSENT, 1, "forbidden")], 2),
        ([("1-1", 1, None), (ABSENT, 1, "not_found"), ("1-1", 2, None)], None),
        ([("2-2", 1, None), (ABSENT, 5, "not_found")], 1),
        ([("1-1", 1, None), ("2-2", 1, "not_found")], 2),
        ([("1-1", 1, None), ("2-2", 1, None)], 2),
        ([("1-1", 1, None), ("2-2", 1, None), ("1-1", 2, None)], None),
        ([("1-1", 5, "timeout"), ("2-2", 1, None)], 6),
        ([("1-1", 5, "timeout"), ("2-2", 1, None), ("1-1", 6, "timeout")], None),
        ([("1-1", 1, "unreadable")], 2),
    ],
)
def test_image_that_was_away_or_changed_is_scored_again_when_it_is_back(tmp_path, run, nights, attempt):
    """Otherwise its newest row would forever say that it is missing, or have the other content's score."""
    view = append(
        tmp_path,
        [row(URI, version, tried, hour, reason) for hour, (version, tried, reason) in enumerate(nights)],
    )
    with Planner(run, view, PlanningRules("m")) as planner:
        (shard,) = planner.plan([segment(tmp_path, range(1))], [], 4, relisted=False)
    assert (shard.to_score, shard.unchanged) == ((0, 1) if attempt is None else (1, 0))
    assert [read_chunk(run, ref)["attempt"].to_pylist() for ref in shard.chunk_refs()] == (
        [] if attempt is None else [[attempt]]
    )


@pytest.mark.parametrize(
    ("later", "superseded"), [(("1-1", 2, None), {0}), (("2-2", 1, None), set()), (None, set())]
)
def test_row_of_the_content_before_the_last_is_not_taken_for_one_of_another_run(
    tmp_path, run, later, superseded
):
    view = append(tmp_path, [row(URI, "1-1", 1, 0), row(URI, "2-2", 1, 1)])
    with Planner(run, view, PlanningRules("m")) as planner:
        shards = planner.plan([segment(tmp_path, range(1))], [], 4, relisted=False)
    rows = [
        row("file:///archive/other.jpeg", "1-1", 1, 2),
        *([row(URI, *later[:2], 3)] if later else []),
    ]
    with Planner(run, append(tmp_path, rows), PlanningRules("m")) as planner:
        assert planner.superseded(shards) == superseded


@pytest.mark.parametrize("shards", ["twice", "one missing"])
def test_inventory_that_does_not_number_its_rows_once_each_is_refused(planner, run, tmp_path, shards):
    segments = [segment(tmp_path, range(start, start + 10)) for start in range(0, 50, 10)]
    planned = planner.plan(segments, [], 4, relisted=False)
    wrong = [planned[0], *planned] if shards == "twice" else planned[1:]
    with pytest.raises(PneumoniaError) as caught:
        check_inventory(run, wrong)
    assert caught.value.remedy is Remedy.START_OVER

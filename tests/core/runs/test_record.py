"""run.json: what an earlier version wrote is read, what a newer one wrote is refused in one line."""

import dataclasses
import json

import pytest

from pneumonia_core.errors import InvalidInput
from pneumonia_core.runs.inventory import InventoryShard
from pneumonia_core.runs.outcome.counts import Counts
from pneumonia_core.runs.outcome.timings import RunTimings, StageSeconds
from pneumonia_core.runs.record import RunRecord

CONFIGURATION = {
    "archives": ["file:///archive"],
    "carry": [],
    "allow_prefix": [],
    "model_id": "m",
    "engine": "auto",
    "precision": "auto",
    "rescore": None,
    "retry_rejected": False,
    "limit": None,
    "chunk_size": 16,
}
# As the first version wrote them: keys are absent until they are known.
LISTING = {
    "format_version": 1,
    "run_id": "000000-20261101T000000-00000aa",
    "state": "listing",
    "run_date": "2026-11-01",
    "created_at": "2026-11-01T00:00:00.000000+00:00",
    "configuration": CONFIGURATION,
    "model": "/models/m",
    "versions": {"pneumonia": "0.1.0"},
    "listing_complete": False,
    "planned_version": 0,
    "counts": {},
    "exit_code": None,
    "updated_at": "2026-11-01T00:00:00+00:00",
    "batches": [],
}
COUNTS = {"listed": 5, "scored": 2, "rejected": 1, "unchanged": 1, "deferred": 1}
SHARD = {
    "index": 0,
    "listed": 5,
    "to_score": 3,
    "unchanged": 1,
    "deferred": 1,
    "first_chunk": 0,
    "chunk_size": 16,
}
COMMITTED = {
    **LISTING,
    "state": "committed",
    "listing_complete": True,
    "any_model": False,
    "superseded": 0,
    "engine": "openvino",
    "skipped": {"hidden": 1},
    "gone": 0,
    "gone_digest": "0" * 16,
    "batches": [SHARD],
    "counts": {**COUNTS, "reject_reasons": {"empty": 1}, "findings": {"normal": 2}, "bytes_read": 7},
    "files": ["run_date=2026-11-01/a.parquet"],
    "version": 1,
    "exit_code": 0,
    "result": {
        **COUNTS,
        "state": "committed",
        "run_id": LISTING["run_id"],
        "run_date": "2026-11-01",
        "results": "file:///r",
        "table": "file:///r/scores",
        "version": 1,
        "page": "file:///r/runs/run.html",
        "model_id": "m",
        "engine": "openvino",
        "gone": 0,
        "skipped": {"hidden": 1},
        "reject_reasons": {"empty": 1},
        "findings": {"normal": 2},
        "seconds": 1.5,
        "images_per_s": 2.0,
        "exit_code": 0,
    },
}


@pytest.mark.parametrize("written", [LISTING, COMMITTED], ids=["listing", "committed"])
def test_every_key_that_the_first_version_wrote_is_read_and_written_again(written):
    again = RunRecord.from_json(written).as_json()
    read_back = json.loads(json.dumps(again))
    for key, value in written.items():
        if isinstance(value, dict) and value:
            assert value.items() <= read_back[key].items(), key
        else:
            assert read_back[key] == value, key


def test_fields_have_their_types():
    record = RunRecord.from_json(COMMITTED)
    assert record.shards == (InventoryShard(**SHARD),)
    assert record.counts == Counts(5, 2, 1, 1, 1, {"empty": 1}, {"normal": 2}, None, 7)
    assert record.configuration.archives == ("file:///archive",)
    assert record.result is not None
    assert (record.result.version, record.result.nothing_new) == (1, False)
    assert (record.timings, record.result.timings) == (None, None)


def test_timings_are_read_where_a_run_has_them():
    timings = RunTimings(9.0, 3, 1, StageSeconds(decode=2.0), steps={"score": 3.0})
    result = {**COMMITTED["result"], "timings": timings.as_json()}
    record = RunRecord.from_json({**COMMITTED, "timings": timings.as_json(), "result": result})
    assert record.timings == timings
    assert record.result is not None
    assert record.result.timings == timings
    assert RunRecord.from_json(json.loads(json.dumps(record.as_json()))) == record


def test_only_a_request_that_trusts_the_chest_alike_resumes_a_run():
    record = RunRecord.from_json(LISTING)
    assert not record.configuration.trust_chest
    assert record.matches(record.request())
    trusting = dataclasses.replace(record.request(), trust_chest=True)
    assert not record.matches(trusting)
    written = {**LISTING, "configuration": {**CONFIGURATION, "trust_chest": True}}
    again = RunRecord.from_json(RunRecord.from_json(written).as_json())
    assert again.matches(trusting)
    assert again.request().trust_chest


def test_only_a_request_of_the_same_batch_size_resumes_a_run():
    record = RunRecord.from_json(LISTING)
    assert record.configuration.batch_size is None
    larger = dataclasses.replace(record.request(), batch_size=64)
    assert not record.matches(larger)
    begun = dataclasses.replace(record, configuration=larger.configuration(), batch_size=64)
    again = RunRecord.from_json(begun.as_json())
    assert again.matches(larger)
    assert again.batch_size == again.request().batch_size == 64


def test_record_of_a_newer_version_is_refused_in_one_line():
    with pytest.raises(InvalidInput, match="newer version") as caught:
        RunRecord.from_json({**COMMITTED, "format_version": 2})
    assert LISTING["run_id"] in caught.value.text
    assert "\n" not in caught.value.text


def test_run_without_rows_rejects_nothing():
    assert Counts().reject_rate == 0
    assert RunRecord.from_json(COMMITTED).counts.reject_rate == 1 / 3

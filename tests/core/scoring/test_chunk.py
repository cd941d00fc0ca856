"""The part of a chunk: what its rows say of an image that crashes the engine, and when it is the engine."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from pneumonia_core.bundles.engines import Scores
from pneumonia_core.errors import PneumoniaError, Rejection
from pneumonia_core.findings import Thresholds
from pneumonia_core.imaging.contract import Decoded
from pneumonia_core.runs.inventory import CHUNK_SCHEMA
from pneumonia_core.scoring.chunk import RowConstants, score_rows
from pneumonia_core.scoring.engine_batch import CRASHED_ENGINE, BatchScorer

CONSTANTS = RowConstants("r", "m", "e", "float32", Thresholds(0.5, 0.5), 32)


def part(
    deadly: set[int], count: int, constants: RowConstants = CONSTANTS, batches: list[int] | None = None
) -> pa.Table:
    """The part of a chunk whose images are grey 1, 2, …, and an engine that crashes on the `deadly` greys.

    The sizes of the engine's batches go to `batches`.
    """

    def attempt(pixels: np.ndarray, uris: object) -> Scores | Rejection:
        if batches is not None:
            batches.append(len(pixels))
        if deadly & set(np.unique(pixels).tolist()):
            return CRASHED_ENGINE
        return Scores(np.full((len(pixels), 3), 1 / 3, np.float32), None)

    facts = {"carried": None, "archive": "file:///a", "image_version": "1", "attempt": 1}
    rows = pa.Table.from_pylist(
        [
            {**dict.fromkeys(CHUNK_SCHEMA.names), **facts, "row_id": n, "image_uri": f"file:///a/{n}"}
            for n in range(count)
        ],
        schema=CHUNK_SCHEMA,
    )
    images = [Decoded(np.full((32, 32), 1 + n, np.uint8)) for n in range(count)]
    return score_rows(rows, images, BatchScorer("e", attempt), constants)


def test_image_that_crashes_the_engine_is_a_row_without_scores():
    rows = part({2}, 3).to_pylist()
    assert [row["status"] for row in rows] == ["scored", "rejected", "scored"]
    assert (rows[1]["reject_stage"], rows[1]["reject_reason"]) == ("score", "crashed_engine")
    assert (rows[1]["p_normal"], rows[1]["finding"]) == (None, None)


def test_engine_that_crashes_on_every_image_of_a_chunk_is_to_blame_itself():
    with pytest.raises(PneumoniaError, match="every image"):
        part({1, 2, 3}, 3)


def test_only_image_of_a_chunk_may_crash_the_engine():
    assert part({1}, 1)["reject_reason"].to_pylist() == ["crashed_engine"]


def test_engine_gets_batches_of_the_size_of_the_run():
    for batch_size, expected in ((4, [4, 4, 2]), (32, [10])):
        batches: list[int] = []
        constants = dataclasses.replace(CONSTANTS, batch_size=batch_size)
        assert part(set(), 10, constants, batches).num_rows == 10
        assert batches == expected

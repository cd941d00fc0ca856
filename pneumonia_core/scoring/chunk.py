"""The decoded images of one chunk, scored in batches: the rows of its part. Both pipelines call this."""

import dataclasses
import datetime
import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pneumonia_core.archives.manifests import SOURCE_MODE_COLUMN
from pneumonia_core.bundles.engines import BATCH_SIZE, Engine, Scores
from pneumonia_core.domain import Domain, in_domain
from pneumonia_core.errors import PneumoniaError, Rejection, Remedy
from pneumonia_core.findings import Thresholds, findings, p_pneumonia
from pneumonia_core.imaging.contract import Decoded
from pneumonia_core.runs.crash_journal import CrashJournal
from pneumonia_core.runs.parts import PART_SCHEMA
from pneumonia_core.system.failpoints import failpoint


@dataclass(frozen=True)
class RowConstants:
    """What is the same in every row that a run writes.

    `not_before` is the newest time in the table. Rows get a later one even where a clock has jumped back, so
    that the newest row of an image stays the newest.
    """

    run_id: str
    model_id: str
    engine: str
    thresholds: Thresholds
    image_size: int
    not_before: datetime.datetime | None = None
    domain: Domain | None = None

    def now(self) -> datetime.datetime:
        """The time of a row that is written now, in UTC."""
        now = datetime.datetime.now(datetime.UTC)
        if self.not_before is None or now > self.not_before:
            return now
        return self.not_before + datetime.timedelta(microseconds=1)


def score_rows(
    rows: pa.Table,
    images: Iterable[Decoded],
    engine: Engine,
    constants: RowConstants,
    lock: threading.Lock,
    journal: CrashJournal,
) -> pa.Table:
    """The part of a chunk: one row for each of its inventory `rows`, whose `images` come in the same order.

    `lock` lets one batch at a time into the engine where several chunks are at work. `journal` knows what
    earlier workers died on. Raises PneumoniaError where the engine fails on every image of a batch.
    """
    uris = rows["image_uri"].to_pylist()
    kept: list[Decoded] = []
    scores: list[Scores] = []
    positions: list[int] = []
    failed: set[int] = set()
    for batch in _in_batches(images, kept):
        positions.extend(position for position, _ in batch)
        with lock:
            scores.append(
                _score_batch(engine, batch, failed, journal, [uris[position] for position, _ in batch])
            )
    return _part_table(rows, kept, positions, _concatenate(scores), failed, constants)


# Pixels uint8 [S, S] of an image, and its position in the chunk.
PositionedPixels = tuple[int, np.ndarray]


def _in_batches(images: Iterable[Decoded], kept: list[Decoded]) -> Iterator[list[PositionedPixels]]:
    """Batches of the images that have pixels.

    Every image goes to `kept` without its pixels, so that the pixels of a whole chunk are never held.
    """
    batch: list[PositionedPixels] = []
    for image in images:
        if image.pixels is not None:
            batch.append((len(kept), image.pixels))
        kept.append(dataclasses.replace(image, pixels=None))
        if len(batch) == BATCH_SIZE:
            yield batch
            batch = []
    if batch:
        yield batch


def _score_batch(
    engine: Engine, batch: list[PositionedPixels], failed: set[int], journal: CrashJournal, uris: list[str]
) -> Scores:
    """The scores of a batch.

    Where the engine fails on the batch, or an earlier worker died on it, the images are scored one by one.
    Positions of images that the engine fails on are added to `failed`.
    """
    positions = [position for position, _ in batch]
    if not journal.killed_in(positions):
        journal.record("batch", positions[0])
        try:
            failpoint("engine", "\n".join(uris))
            return engine(np.stack([pixels for _, pixels in batch]))
        except Exception:  # noqa: BLE001 - an engine may raise anything; its images become rows
            return _score_singly(engine, batch, failed, journal, uris)
    return _score_singly(engine, batch, failed, journal, uris)


def _score_singly(
    engine: Engine, batch: list[PositionedPixels], failed: set[int], journal: CrashJournal, uris: list[str]
) -> Scores:
    singles: list[Scores | None] = []
    for (position, pixels), uri in zip(batch, uris, strict=True):
        if position in journal.poison:
            singles.append(None)
            continue
        journal.record("image", position)
        failpoint("engine", uri)
        singles.append(_score_single(engine, pixels[None]))
    bad = {position for (position, _), single in zip(batch, singles, strict=True) if single is None}
    if len(bad) == len(batch) and not bad <= journal.poison:
        raise PneumoniaError(
            f"The engine {engine.name} failed on every image of a batch: either the engine is broken, or "
            "this machine has too little memory for it.",
            Remedy.OTHER_ENGINE,
        )
    failed.update(bad)
    domain = any(single is not None and single.domain is not None for single in singles)
    blank = Scores(np.full((1, 3), np.nan, np.float32), np.full(1, np.nan, np.float32) if domain else None)
    return _concatenate([single or blank for single in singles])


def _score_single(engine: Engine, image: np.ndarray) -> Scores | None:
    try:
        return engine(image)
    except Exception:  # noqa: BLE001 - the caller counts it as an engine_error row
        return None


def _concatenate(batches: Sequence[Scores]) -> Scores:
    if not batches:
        return Scores(np.zeros((0, 3), np.float32), None)
    domains = [batch.domain for batch in batches if batch.domain is not None]
    return Scores(
        np.concatenate([batch.probabilities for batch in batches]),
        np.concatenate(domains) if domains else None,
    )


def _part_table(
    rows: pa.Table,
    images: list[Decoded],
    positions: list[int],
    scores: Scores,
    failed: set[int],
    constants: RowConstants,
) -> pa.Table:
    count = rows.num_rows
    finite = np.isfinite(scores.probabilities).all(axis=1)
    failed = failed | {position for position, good in zip(positions, finite, strict=True) if not good}
    scored = np.zeros(count, bool)
    scored[positions] = True
    scored[list(failed)] = False
    probabilities = np.zeros((count, 3), np.float32)
    probabilities[positions] = np.nan_to_num(scores.probabilities)
    unknown = ~scored
    in_table: dict[str, pa.Array | pa.ChunkedArray] = {
        "row_id": rows["row_id"],
        "carried": _with_modes(rows["carried"], images),
        "image_uri": rows["image_uri"],
        "image_version": rows["image_version"],
        "image_sha256": pa.array([image.source.sha256 for image in images], pa.string()),
        "size_bytes": pa.array([image.source.size_bytes for image in images], pa.int64()),
        "source_format": pa.array([image.source.format for image in images], pa.string()),
        "width": pa.array([image.source.width for image in images], pa.int32()),
        "height": pa.array([image.source.height for image in images], pa.int32()),
        "archive": rows["archive"],
        "study_key": pa.array([image.source.study_key for image in images], pa.string()),
        "status": pa.array(np.where(scored, "scored", "rejected")),
        "p_normal": pa.array(probabilities[:, 0], mask=unknown),
        "p_bacterial": pa.array(probabilities[:, 1], mask=unknown),
        "p_viral": pa.array(probabilities[:, 2], mask=unknown),
        "p_pneumonia": pa.array(p_pneumonia(probabilities), mask=unknown),
        "finding": pa.array(
            findings(probabilities, constants.thresholds).astype(object), pa.string(), mask=unknown
        ),
        **_domain_columns(images, positions, scores.domain, unknown, constants.domain),
        **_rejections(images, failed),
        "attempt": rows["attempt"],
        "engine": _constant(constants.engine, count),
        "model_id": _constant(constants.model_id, count),
        "run_id": _constant(constants.run_id, count),
        "scored_at": pa.array([constants.now()] * count, pa.timestamp("us", tz="UTC")),
    }
    return pa.table(in_table).select(PART_SCHEMA.names).cast(PART_SCHEMA)


def _with_modes(carried: pa.ChunkedArray, images: list[Decoded]) -> pa.Array | pa.ChunkedArray:
    """The carried values, with the colour mode of each source where a manifest carries the column for it."""
    if carried.null_count == len(carried):
        return carried
    texts = zip(carried.to_pylist(), images, strict=True)
    return pa.array([_with_mode(text, image.source.mode) for text, image in texts], pa.string())


def _with_mode(carried: str | None, mode: str | None) -> str | None:
    # The text is searched first: a run over millions of rows has other columns, and parsing costs more.
    if carried is None or SOURCE_MODE_COLUMN not in carried:
        return carried
    values = json.loads(carried)
    if SOURCE_MODE_COLUMN not in values or values[SOURCE_MODE_COLUMN] is not None:
        return carried
    return json.dumps({**values, SOURCE_MODE_COLUMN: mode})


def _domain_columns(
    images: list[Decoded],
    positions: list[int],
    scores: np.ndarray | None,
    unknown: np.ndarray,
    domain: Domain | None,
) -> dict[str, pa.Array]:
    count = len(images)
    if scores is None or domain is None:
        return {"domain_score": pa.nulls(count, pa.float32()), "in_domain": pa.nulls(count, pa.bool_())}
    # An engine that fails on some images gives no score for them: they are rejected.
    of_image = np.full(count, np.nan, np.float32)
    of_image[positions] = scores
    familiar = in_domain(domain, of_image, [image.source.age_years for image in images])
    return {
        "domain_score": pa.array(of_image, mask=unknown),
        "in_domain": pa.array(familiar, mask=unknown),
    }


def _rejections(images: list[Decoded], failed: set[int]) -> dict[str, pa.Array]:
    rejections = [image.rejection for image in images]
    for position in failed:
        rejections[position] = Rejection("engine_error", "the engine gave no finite probabilities for it")
    return {
        f"reject_{name}": pa.array([each and getattr(each, name) for each in rejections], pa.string())
        for name in ("stage", "reason", "detail")
    }


def _constant(text: str, count: int) -> pa.Array:
    return pa.repeat(pa.scalar(text, pa.string()), count)

"""The decoded images of one chunk, scored in batches: the rows of its part. Both pipelines call this."""

import dataclasses
import datetime
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pneumonia_core.archives.manifests import SOURCE_COLUMNS
from pneumonia_core.bundles.engines import BATCH_SIZE, Scores
from pneumonia_core.domain import Domain, in_domain
from pneumonia_core.errors import Rejection
from pneumonia_core.findings import Conformal, Thresholds, findings, findings_sets, p_pneumonia
from pneumonia_core.imaging.contract import Decoded, Source
from pneumonia_core.runs.parts import PART_SCHEMA
from pneumonia_core.scoring.engine_batch import ENGINE_ERROR, ScoreBatch, concatenate, every_image_fails


@dataclass(frozen=True)
class RowConstants:
    """What is the same in every row that a run writes.

    With `trust_chest`, DICOM's modality and body part are not judged. The engine gets batches of `batch_size`
    images. `not_before` is the newest time in the
    table. Rows get a later one even where a clock has jumped back, so that the newest row of an image stays
    the newest.
    """

    run_id: str
    model_id: str
    engine: str
    precision: str
    thresholds: Thresholds
    image_size: int
    not_before: datetime.datetime | None = None
    domain: Domain | None = None
    conformal: Conformal | None = None
    trust_chest: bool = False
    batch_size: int = BATCH_SIZE

    def now(self) -> datetime.datetime:
        """The time of a row that is written now, in UTC."""
        now = datetime.datetime.now(datetime.UTC)
        if self.not_before is None or now > self.not_before:
            return now
        return self.not_before + datetime.timedelta(microseconds=1)


def score_rows(
    rows: pa.Table, images: Iterable[Decoded], scorer: ScoreBatch, constants: RowConstants
) -> pa.Table:
    """The part of a chunk: one row for each of its inventory `rows`, whose `images` come in the same order.

    Raises PneumoniaError where the engine fails on every image.
    """
    uris = rows["image_uri"].to_pylist()
    kept: list[Decoded] = []
    scores: list[Scores] = []
    positions: list[int] = []
    rejections: dict[int, Rejection] = {}
    for batch in _in_batches(images, kept, constants.batch_size):
        places = [position for position, _ in batch]
        scored = scorer(np.stack([pixels for _, pixels in batch]), [uris[place] for place in places])
        scores.append(scored.scores)
        positions.extend(places)
        rejections.update({places[number]: rejection for number, rejection in scored.rejections.items()})
    if len(rejections) == len(positions) > 1:
        raise every_image_fails(constants.engine)
    return _part_table(rows, kept, positions, concatenate(scores), rejections, constants)


# Pixels uint8 [S, S] of an image, and its position in the chunk.
PositionedPixels = tuple[int, np.ndarray]


def _in_batches(
    images: Iterable[Decoded], kept: list[Decoded], batch_size: int
) -> Iterator[list[PositionedPixels]]:
    """Batches of the images that have pixels.

    Every image goes to `kept` without them and their JPEG, so that those of a whole chunk are never held.
    """
    batch: list[PositionedPixels] = []
    for image in images:
        if image.pixels is not None:
            batch.append((len(kept), image.pixels))
        kept.append(dataclasses.replace(image, pixels=None, encoded=None))
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


def _part_table(
    rows: pa.Table,
    images: list[Decoded],
    positions: list[int],
    scores: Scores,
    rejections: dict[int, Rejection],
    constants: RowConstants,
) -> pa.Table:
    count = rows.num_rows
    finite = np.isfinite(scores.probabilities).all(axis=1)
    not_finite = {position for position, good in zip(positions, finite, strict=True) if not good}
    rejections = {**dict.fromkeys(not_finite, ENGINE_ERROR), **rejections}
    scored = np.zeros(count, bool)
    scored[positions] = True
    scored[list(rejections)] = False
    probabilities = np.zeros((count, 3), np.float32)
    probabilities[positions] = np.nan_to_num(scores.probabilities)
    unknown = ~scored
    in_table: dict[str, pa.Array | pa.ChunkedArray] = {
        "row_id": rows["row_id"],
        "carried": _with_source_columns(rows["carried"], images),
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
        "findings_set": _findings_sets(probabilities, unknown, constants),
        **_domain_columns(images, positions, scores.domain, unknown, constants.domain),
        **_rejections(images, rejections),
        "attempt": rows["attempt"],
        "engine": _constant(constants.engine, count),
        "precision": _constant(constants.precision, count),
        "model_id": _constant(constants.model_id, count),
        "run_id": _constant(constants.run_id, count),
        "scored_at": pa.array([constants.now()] * count, pa.timestamp("us", tz="UTC")),
    }
    return pa.table(in_table).select(PART_SCHEMA.names).cast(PART_SCHEMA)


def _with_source_columns(carried: pa.ChunkedArray, images: list[Decoded]) -> pa.Array | pa.ChunkedArray:
    """The carried values, with what each source says where a manifest carries SOURCE_COLUMNS for it."""
    if carried.null_count == len(carried):
        return carried
    texts = zip(carried.to_pylist(), images, strict=True)
    return pa.array([_with_source(text, image.source) for text, image in texts], pa.string())


def _with_source(carried: str | None, source: Source) -> str | None:
    # The text is searched first: a run over millions of rows has other columns, and parsing costs more.
    if carried is None or not any(column in carried for column in SOURCE_COLUMNS):
        return carried
    values = json.loads(carried)
    for column, field in SOURCE_COLUMNS.items():
        if column in values and values[column] is None:
            found = getattr(source, field)
            values[column] = None if found is None else str(found)
    return json.dumps(values)


def _findings_sets(probabilities: np.ndarray, unknown: np.ndarray, constants: RowConstants) -> pa.Array:
    if constants.conformal is None:
        return pa.nulls(len(probabilities), pa.string())
    sets = findings_sets(probabilities, constants.thresholds, constants.conformal)
    return pa.array(sets.astype(object), pa.string(), mask=unknown)


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


def _rejections(images: list[Decoded], by_engine: dict[int, Rejection]) -> dict[str, pa.Array]:
    each_image = [by_engine.get(position, image.rejection) for position, image in enumerate(images)]
    return {
        f"reject_{name}": pa.array([each and getattr(each, name) for each in each_image], pa.string())
        for name in ("stage", "reason", "detail")
    }


def _constant(text: str, count: int) -> pa.Array:
    return pa.repeat(pa.scalar(text, pa.string()), count)

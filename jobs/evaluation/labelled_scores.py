"""The images of a labelled set scored by a scoring run, and their rows of the table."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pyarrow.compute as pc

from jobs.evaluation.options import EvaluateOptions
from jobs.scoring.context import ExecutionOptions
from jobs.scoring.options import ScoreOptions
from jobs.scoring.request import make_request
from jobs.scoring.run import score_archives
from pneumonia_core.archives.manifests import SOURCE_MODE_COLUMN
from pneumonia_core.bundles.bundle import Bundle
from pneumonia_core.datasets.kermany import LabelledImage
from pneumonia_core.datasets.labelled import write_manifest
from pneumonia_core.errors import RejectedImage
from pneumonia_core.evaluation.table_scores import Row
from pneumonia_core.results.table import find_table, scan
from pneumonia_core.runs.record import RunRequest
from pneumonia_core.storage.location import Location, open_location
from pneumonia_core.storage.ranges import stat_file

MANIFEST: Final = "images.parquet"


def request_scores(
    images: Sequence[LabelledImage],
    folder: Path,
    options: EvaluateOptions,
    bundle: Bundle,
    filled: Sequence[str],
) -> RunRequest:
    """The request to score these images by a manifest in `folder`, and to fill the columns `filled`."""
    manifest = folder / MANIFEST
    rules = write_manifest(images, open_location(str(manifest)), filled)
    scoring = ScoreOptions(
        (str(manifest),), options.model, engine=options.engine, precision=options.precision, rescore="all"
    )
    return make_request(scoring, bundle, rules)


def score_labelled(
    images: Sequence[LabelledImage],
    request: RunRequest,
    bundle: Bundle,
    folder: Path,
    execution: ExecutionOptions,
) -> list[Row]:
    """The table's row of each image, after scoring those that have none yet."""
    results = results_location(folder, request, [image.uri for image in images])
    score_archives(results, request, bundle, execution)
    table = find_table(results)
    assert table is not None
    rows = scan(table).to_table(filter=pc.field("model_id") == request.model_id)
    return rows_of_current_versions(images, rows.sort_by("scored_at").to_pylist())


def results_location(folder: Path, request: RunRequest, uris: Sequence[str]) -> Location:
    """The results folder for these images, this model and this engine, and nothing else.

    Images that are scored under other options must not count as done. A run that was killed resumes with the
    images that it has listed, so it must not resume for those of another split. Rows without a column that is
    asked for must not count as done either.
    """
    asked = [name for name in request.rules.carry if name != SOURCE_MODE_COLUMN]
    images = hashlib.sha256("\n".join([*uris, *asked]).encode()).hexdigest()[:8]
    name = f"{request.model_id}-{request.engine}-{request.precision}-{images}"
    return open_location(str(folder / "results")).child(name)


def rows_of_current_versions(images: Sequence[LabelledImage], rows: Sequence[Row]) -> list[Row]:
    """The newest row of each image at its current version; of an image without such a row, its newest row.

    `rows` are in the order in which they were scored. An earlier version did not score an image again that
    had changed and then changed back, so its newest row may be of another version.
    """
    newest = {row["image_uri"]: row for row in rows}
    by_version = {(row["image_uri"], row["image_version"]): row for row in rows}
    versions = Counter(uri for uri, _ in by_version)
    return [
        newest[image.uri]
        if versions[image.uri] == 1
        else by_version.get((image.uri, _version(image) or ""), newest[image.uri])
        for image in images
    ]


def _version(image: LabelledImage) -> str | None:
    if image.version is not None:
        return image.version
    try:
        return stat_file(image.uri).version
    except RejectedImage:
        return None

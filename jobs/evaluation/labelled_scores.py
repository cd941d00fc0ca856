"""The images of a labelled set scored through the pipeline, like any archive's, and their rows of the table."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from jobs.scoring.context import ExecutionOptions
from pneumonia_core.archives.manifests import ListingRules
from pneumonia_core.datasets.kermany import LabelledImage
from pneumonia_core.errors import PneumoniaError, RejectedImage
from pneumonia_core.runs.record import RunRequest
from pneumonia_core.storage.location import Location, open_location

MANIFEST: Final = "images.parquet"
Rows = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class ScoredSet:
    """The labelled images that have a score, in one order: truth, and their rows of the table."""

    labels: list[int]
    patients: list[str]
    rows: list[dict[str, Any]]


def order_scores(
    images: Sequence[LabelledImage], model: str, folder: Path, engine: str, precision: str
) -> RunRequest:
    """The order to score these images, which a manifest in `folder` names. Raises InvalidInput where the bundle is none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from jobs.scoring.request import make_request

    manifest = folder / MANIFEST
    pq.write_table(pa.table({"uri": _uris(images)}), manifest)
    return make_request(
        (str(manifest),), model, engine=engine, precision=precision, rescore="all", rules=_rules(images)
    )


def _rules(images: Sequence[LabelledImage]) -> ListingRules:
    """An evaluation writes its manifest itself: it may name the images of the labelled set, wherever they are."""
    buckets = {"/".join(image.uri.split("/")[:3]) for image in images if not image.uri.startswith("file://")}
    return ListingRules(allow_prefixes=("/", *sorted(buckets)))


def _uris(images: Sequence[LabelledImage]) -> list[str]:
    return [image.uri for image in images]


def score_labelled(
    images: Sequence[LabelledImage], order: RunRequest, folder: Path, settings: ExecutionOptions
) -> Rows:
    """The table's rows by image URI, after scoring what it does not have yet."""
    import pyarrow.compute as pc

    from jobs.scoring.run import score_archives
    from pneumonia_core.results.table import find_table, scan

    results = results_of(folder, order, _uris(images))
    score_archives(results, order, settings)
    table = find_table(results)
    assert table is not None
    rows = scan(table).to_table(filter=pc.field("model_id") == order.model_id)
    return rows_of_current_versions(images, rows.sort_by("scored_at").to_pylist())


def results_of(folder: Path, order: RunRequest, uris: Sequence[str]) -> Location:
    """Where the scores of these images by this model and engine are, and of nothing else.

    What was scored otherwise is not scored, and a run that was killed goes on with the images that it has listed: those
    of another split must not come upon it.
    """
    images = hashlib.sha256("\n".join(uris).encode()).hexdigest()[:8]
    name = f"{order.model_id}-{order.engine}-{order.precision}-{images}"
    return open_location(str(folder / "results")).child(name)


def rows_of_current_versions(images: Sequence[LabelledImage], rows: Sequence[dict[str, Any]]) -> Rows:
    """The newest row of each image at its current version, by URI; of an image without such a row, its newest row.

    `rows` are in the order in which they were scored. An image that changed and then changed back is not scored
    again, so its newest row may be of another version.
    """
    newest = {row["image_uri"]: row for row in rows}
    versions = {(row["image_uri"], row["image_version"]): row for row in rows}
    scored = Counter(uri for uri, _ in versions)
    return {
        image.uri: newest[image.uri]
        if scored[image.uri] == 1
        else versions.get((image.uri, _version(image)), newest[image.uri])
        for image in images
    }


def _version(image: LabelledImage) -> str | None:
    from pneumonia_core.storage.ranges import stat_file

    if image.version is not None:
        return image.version
    try:
        return stat_file(image.uri).version
    except RejectedImage:
        return None


def colour_modes(images: Sequence[LabelledImage], folder: Path) -> dict[str, str]:
    """The colour mode of each image of the manifest that could be read, by its URI."""
    from jobs.inspection.survey import survey_listing
    from pneumonia_core.archives.lister import Lister

    with Lister([open_location(str(folder / MANIFEST)).uri], _rules(images)) as lister:
        while not lister.wait(60):
            continue
        surveyed = survey_listing(lister.take(), lister.listed)
    modes = zip(surveyed["image_uri"].to_pylist(), surveyed["mode"].to_pylist(), strict=True)
    return {uri: mode for uri, mode in modes if mode is not None}


def measured_images(images: Sequence[LabelledImage], rows: Rows) -> ScoredSet:
    """Those of the images that could be scored. Raises PneumoniaError where none could."""
    found = [(image, rows[uri]) for image, uri in zip(images, _uris(images), strict=True)]
    scored = [(image, row) for image, row in found if row["status"] == "scored"]
    if not scored:
        reasons = ", ".join(f"{count} {reason}" for reason, count in rejected_images(rows).items())
        raise PneumoniaError(
            f"none of the images could be scored ({reasons}): there is nothing to measure. Mend that and run the same "
            "command again."
        )
    return ScoredSet(
        [image.label for image, _ in scored],
        [image.patient_id for image, _ in scored],
        [row for _, row in scored],
    )


def rejected_images(rows: Rows) -> dict[str, int]:
    """How many could not be scored, by reason."""
    reasons = Counter(row["reject_reason"] for row in rows.values() if row["status"] == "rejected")
    return dict(sorted(reasons.items()))

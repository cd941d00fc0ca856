"""The audit of a data set or archive: counts, shortcuts, duplicates, leaks between splits."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypedDict

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pneumonia_core.datasets.annotations import Annotation, annotate
from pneumonia_core.datasets.duplicates import Alike, lookalikes, same_files
from pneumonia_core.datasets.shortcuts import SHORTCUT_FACTS, Shortcut, shortcut_aurocs
from pneumonia_core.findings import BACTERIAL, CLASSES, VIRAL

_KINDS: Final = (CLASSES[BACTERIAL], CLASSES[VIRAL])


class SizeRange(TypedDict):
    min: int
    median: float
    max: int


class Sizes(TypedDict, total=False):
    """Sizes of the readable images, and the number of `distinct` widths and heights."""

    width: SizeRange
    height: SizeRange
    bytes: SizeRange
    distinct: int


class GroupCounts(TypedDict):
    """Counts of duplicates or look-alikes; the last two are numbers of groups."""

    groups: int
    images: int
    pairs: int
    across_classes: int
    across_splits: int


class PatientCounts(TypedDict):
    known: int
    across_splits: int


class AuditSummary(TypedDict):
    """The counts of an audit, as JSON has them."""

    images: int
    readable: int
    labelled: int
    classes: dict[str, dict[str, int]] | None  # {split: {class: images}}, null without any class
    formats: dict[str, int]
    modes: dict[str, int]
    quantisation: dict[str, int]
    sizes: Sizes
    rejected: dict[str, int]  # by reason
    cues: dict[str, list[Shortcut]]  # shortcuts by split, and of `all` where there are several splits
    kind_cues: dict[str, list[Shortcut]]  # the same of bacterial vs viral, among images of a known kind
    duplicates: GroupCounts  # equal files
    lookalikes: GroupCounts
    patients: PatientCounts | None  # null where none is known
    concerns: list[str]  # sentences on what to look at before training


class RejectedName(TypedDict):
    uri: str
    reason: str


class CrossingPatient(TypedDict):
    patient: str
    splits: list[str]


class AuditDetails(TypedDict):
    """The images and patients behind the counts, by name."""

    rejected: list[RejectedName]
    duplicates: list[list[str]]
    lookalikes: list[list[str]]
    patients_across_splits: list[CrossingPatient]


def audit(surveyed: pa.Table) -> tuple[AuditSummary, AuditDetails]:
    """The summary of surveyed images, and its details.

    `surveyed` has the columns of IMAGE_FACTS, with image_uri, archive and carried.
    """
    uris = surveyed["image_uri"].to_pylist()
    rows = zip(uris, surveyed["archive"].to_pylist(), surveyed["carried"].to_pylist(), strict=True)
    annotations = [annotate(uri, archive, carried) for uri, archive, carried in rows]
    reasons = surveyed["reason"].to_pylist()
    readable = np.array([reason is None for reason in reasons], bool)
    digests = surveyed["sha256"].to_pylist()
    same = same_files(digests)
    alike = lookalikes(surveyed["looks"].to_pylist(), digests)
    patients = _splits_of_patients(annotations)
    summary: AuditSummary = {
        "images": len(uris),
        "readable": int(readable.sum()),
        "labelled": sum(one.label is not None for one in annotations),
        "classes": _classes(annotations),
        "formats": _counts(surveyed["format"]),
        "modes": _counts(surveyed["mode"]),
        "quantisation": _counts(surveyed["quantisation"]),
        "sizes": _sizes(surveyed.filter(pa.array(readable))),
        "rejected": _counts(surveyed["reason"]),
        **_shortcuts(surveyed, annotations, readable),
        "duplicates": _group_counts(same, annotations),
        "lookalikes": _group_counts(alike, annotations),
        "patients": _patient_counts(patients),
        "concerns": [],
    }
    summary["concerns"] = _concerns(summary)
    details: AuditDetails = {
        "rejected": [
            {"uri": uri, "reason": reason} for uri, reason in zip(uris, reasons, strict=True) if reason
        ],
        "duplicates": [[uris[number] for number in group] for group in same.groups],
        "lookalikes": [[uris[number] for number in group] for group in alike.groups],
        "patients_across_splits": [
            {"patient": patient, "splits": sorted(splits)}
            for patient, splits in sorted(patients.items())
            if len(splits) > 1
        ],
    }
    return summary, details


def _classes(annotations: Sequence[Annotation]) -> dict[str, dict[str, int]] | None:
    if all(one.label is None for one in annotations):
        return None
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for one in annotations:
        counts[one.split or "no split"][one.label or "no class"] += 1
    return {split: dict(sorted(counter.items())) for split, counter in sorted(counts.items())}


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    """How many images have each value, the most frequent first."""
    counter = Counter(value for value in column.to_pylist() if value is not None)
    return dict(sorted(counter.items(), key=lambda item: (-item[1], item[0])))


def _sizes(readable: pa.Table) -> Sizes:
    sizes: Sizes = {}
    if width := _size_range(readable["width"]):
        sizes["width"] = width
    if height := _size_range(readable["height"]):
        sizes["height"] = height
    if size_bytes := _size_range(readable["size_bytes"]):
        sizes["bytes"] = size_bytes
    sizes["distinct"] = len(
        set(zip(readable["width"].to_pylist(), readable["height"].to_pylist(), strict=True))
    )
    return sizes


def _size_range(column: pa.ChunkedArray) -> SizeRange | None:
    values = column.drop_null().to_numpy()
    if not len(values):
        return None
    return {"min": int(values.min()), "median": float(np.median(values)), "max": int(values.max())}


class _Shortcuts(TypedDict):
    cues: dict[str, list[Shortcut]]
    kind_cues: dict[str, list[Shortcut]]


def _shortcuts(
    surveyed: pa.Table, annotations: Sequence[Annotation], readable: npt.NDArray[np.bool_]
) -> _Shortcuts:
    """The shortcuts of readable images: to pneumonia among those with a class, and to the kind."""
    patients = pa.array([one.patient_id for one in annotations], pa.string())
    facts = surveyed.append_column("patient", patients).select(list(SHORTCUT_FACTS))
    splits = np.array([one.split or "no split" for one in annotations], dtype=str)
    labels = [one.label for one in annotations]
    labelled = readable & np.array([label is not None for label in labels], bool)
    of_kind = readable & np.array([label in _KINDS for label in labels], bool)
    ill = np.array([bool(one.is_ill) for one in annotations], bool)
    bacterial = np.array([label == CLASSES[BACTERIAL] for label in labels], bool)
    return {
        "cues": _by_split(facts, splits, labelled, ill),
        "kind_cues": _by_split(facts, splits, of_kind, bacterial),
    }


def _by_split(
    facts: pa.Table,
    splits: npt.NDArray[np.str_],
    chosen: npt.NDArray[np.bool_],
    positive: npt.NDArray[np.bool_],
) -> dict[str, list[Shortcut]]:
    """The shortcuts of the chosen images by split; and of `all` with several splits."""
    parts = {str(split): chosen & (splits == split) for split in np.unique(splits[chosen])}
    if len(parts) > 1:
        parts["all"] = chosen
    found = {}
    for part, mask in parts.items():
        rows = facts.filter(pa.array(mask))
        columns = {name: rows[name].to_pylist() for name in SHORTCUT_FACTS}
        found[part] = shortcut_aurocs(columns, positive[mask])
    return {part: shortcuts for part, shortcuts in found.items() if shortcuts}


def _group_counts(alike: Alike, annotations: Sequence[Annotation]) -> GroupCounts:
    def mixed(value: Callable[[Annotation], object]) -> int:
        values = ({value(annotations[number]) for number in group} - {None} for group in alike.groups)
        return sum(len(different) > 1 for different in values)

    return {
        "groups": len(alike.groups),
        "images": alike.images,
        "pairs": alike.pairs,
        "across_classes": mixed(lambda one: one.is_ill),
        "across_splits": mixed(lambda one: one.split),
    }


def _splits_of_patients(annotations: Iterable[Annotation]) -> dict[str, set[str]]:
    patients: dict[str, set[str]] = defaultdict(set)
    for one in annotations:
        if one.patient_id is not None:
            patients[one.patient_id].add(one.split or "no split")
    return patients


def _patient_counts(patients: dict[str, set[str]]) -> PatientCounts | None:
    if not patients:
        return None
    return {
        "known": len(patients),
        "across_splits": sum(len(splits) > 1 for splits in patients.values()),
    }


def _concerns(summary: AuditSummary) -> list[str]:
    """What to know before training on the images, or trusting a figure measured on them."""
    concerns = _shortcut_concerns("normal and pneumonia", summary["cues"])
    concerns += _shortcut_concerns("bacterial and viral pneumonia", summary["kind_cues"])
    for counts, what in ((summary["duplicates"], "the same file"), (summary["lookalikes"], "look-alikes")):
        if counts["across_classes"]:
            concerns.append(f"{counts['across_classes']} groups of {what} are in both classes.")
        if counts["across_splits"]:
            concerns.append(f"{counts['across_splits']} groups of {what} are in more than one split.")
    patients = summary["patients"]
    if patients and patients["across_splits"]:
        concerns.append(f"{patients['across_splits']} patients are in more than one split.")
    if summary["readable"] < summary["images"]:
        concerns.append(f"{summary['images'] - summary['readable']} images cannot be read.")
    return concerns


def _shortcut_concerns(classes: str, found: dict[str, list[Shortcut]]) -> list[str]:
    concerns: list[str] = []
    for part, shortcuts in found.items():
        flagged = [f"{one['cue']} {one['auroc']:.3f}" for one in shortcuts if one["flagged"]]
        if flagged and not (part == "all" and concerns):
            where = "" if part in ("no split", "all") else f" in {part}"
            concerns.append(
                f"{classes}{where} can be told apart without looking at the lung (AUROC: "
                f"{', '.join(flagged)}): a network may learn that instead."
            )
    return concerns

"""What a survey of a data set or archive amounts to: counts, cues, duplicates, leaks between splits."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from pneumonia_core.datasets.annotations import Annotation, annotate
from pneumonia_core.datasets.duplicates import Alike, lookalikes, same_files
from pneumonia_core.datasets.shortcuts import cue_aurocs

_CUE_FACTS: Final = ("width", "height", "size_bytes", "quantisation", "mode", "format")


def audit(surveyed: pa.Table) -> tuple[dict[str, Any], dict[str, Any]]:
    """The summary of surveyed images, and its details, both ready for json.dump.

    `surveyed` has the columns of survey.FACTS_SCHEMA with image_uri, archive and carried. The summary counts:

    - `images`, `readable`, `labelled`; `classes` {split: {class: images}}, null without any class
    - `formats`, `modes`, `quantisation` {name: images}; `sizes` {width, height, bytes: {min, median, max}, distinct}
    - `rejected` {reason: images}
    - `cues` {split: see cues.cue_aurocs}, of the readable images with a class, and `all` where there are several
    - `duplicates` (equal files) and `lookalikes`: {groups, images, pairs, across_classes, across_splits}, the last
      two being numbers of groups
    - `patients`: {known, across_splits}, null where none is known
    - `concerns`: sentences about what a training on these data should look at

    Details name the images: `rejected` [{uri, reason}], `duplicates` and `lookalikes` [[uri]], and
    `patients_across_splits` [{patient, splits}].
    """
    uris = surveyed["image_uri"].to_pylist()
    said = [
        annotate(uri, archive, carried)
        for uri, archive, carried in zip(
            uris, surveyed["archive"].to_pylist(), surveyed["carried"].to_pylist(), strict=True
        )
    ]
    reasons = surveyed["reason"].to_pylist()
    readable = np.array([reason is None for reason in reasons], bool)
    digests = surveyed["sha256"].to_pylist()
    same = same_files(digests)
    alike = lookalikes(surveyed["looks"].to_pylist(), digests)
    patients = _patients(said)
    summary: dict[str, Any] = {
        "images": len(uris),
        "readable": int(readable.sum()),
        "labelled": sum(one.label is not None for one in said),
        "classes": _classes(said),
        "formats": _counts(surveyed["format"]),
        "modes": _counts(surveyed["mode"]),
        "quantisation": _counts(surveyed["quantisation"]),
        "sizes": _sizes(surveyed.filter(pa.array(readable))),
        "rejected": _counts(surveyed["reason"]),
        "cues": _cues(surveyed, said, readable),
        "duplicates": _groups(same, said),
        "lookalikes": _groups(alike, said),
        "patients": _patient_counts(patients),
    }
    summary["concerns"] = _concerns(summary)
    details = {
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


def _classes(said: Sequence[Annotation]) -> dict[str, dict[str, int]] | None:
    if all(one.label is None for one in said):
        return None
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for one in said:
        counts[one.split or "no split"][one.label or "no class"] += 1
    return {split: dict(sorted(counter.items())) for split, counter in sorted(counts.items())}


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    """How many images have each value, the most frequent first."""
    counter = Counter(value for value in column.to_pylist() if value is not None)
    return dict(sorted(counter.items(), key=lambda item: (-item[1], item[0])))


def _sizes(readable: pa.Table) -> dict[str, Any]:
    columns = {"width": "width", "height": "height", "bytes": "size_bytes"}
    sizes: dict[str, Any] = {}
    for name, column in columns.items():
        values = readable[column].drop_null().to_numpy()
        if len(values):
            sizes[name] = {
                "min": int(values.min()),
                "median": float(np.median(values)),
                "max": int(values.max()),
            }
    pairs = zip(readable["width"].to_pylist(), readable["height"].to_pylist(), strict=True)
    sizes["distinct"] = len(set(pairs))
    return sizes


def _cues(surveyed: pa.Table, said: Sequence[Annotation], readable: np.ndarray) -> dict[str, Any]:
    labelled = readable & np.array([one.label is not None for one in said], bool)
    splits = np.array([one.split or "no split" for one in said], dtype=str)
    ill = np.array([bool(one.is_ill) for one in said], bool)
    present = sorted({str(split) for split in splits[labelled]})
    parts = {split: labelled & (splits == split) for split in present}
    if len(parts) > 1:
        parts["all"] = labelled
    found = {}
    for part, mask in parts.items():
        rows = surveyed.select(_CUE_FACTS).filter(pa.array(mask))
        found[part] = cue_aurocs({name: rows[name].to_pylist() for name in _CUE_FACTS}, ill[mask])
    return {part: cues for part, cues in found.items() if cues}


def _groups(alike: Alike, said: Sequence[Annotation]) -> dict[str, int]:
    def mixed(what: Callable[[Annotation], object]) -> int:
        values = ({what(said[number]) for number in group} - {None} for group in alike.groups)
        return sum(len(different) > 1 for different in values)

    return {
        "groups": len(alike.groups),
        "images": alike.images,
        "pairs": alike.pairs,
        "across_classes": mixed(lambda one: one.is_ill),
        "across_splits": mixed(lambda one: one.split),
    }


def _patients(said: Iterable[Annotation]) -> dict[str, set[str]]:
    patients: dict[str, set[str]] = defaultdict(set)
    for one in said:
        if one.patient_id is not None:
            patients[one.patient_id].add(one.split or "no split")
    return patients


def _patient_counts(patients: dict[str, set[str]]) -> dict[str, int] | None:
    if not patients:
        return None
    return {
        "known": len(patients),
        "across_splits": sum(len(splits) > 1 for splits in patients.values()),
    }


def _concerns(summary: dict[str, Any]) -> list[str]:
    """What one would rather know before training on the images, or trusting a figure measured on them."""
    concerns: list[str] = []
    for part, cues in summary["cues"].items():
        flagged = [f"{cue['cue']} {cue['auroc']:.3f}" for cue in cues if cue["flagged"]]
        if flagged and not (part == "all" and concerns):
            where = "" if part in ("no split", "all") else f" in {part}"
            concerns.append(
                f"normal and pneumonia{where} can be told apart without looking at the lung (AUROC: "
                f"{', '.join(flagged)}): a network may learn that instead."
            )
    for name, what in (("duplicates", "the same file"), ("lookalikes", "look-alikes")):
        counts = summary[name]
        if counts["across_classes"]:
            concerns.append(f"{counts['across_classes']} groups of {what} lie in both classes.")
        if counts["across_splits"]:
            concerns.append(f"{counts['across_splits']} groups of {what} lie in more than one split.")
    if summary["patients"] and summary["patients"]["across_splits"]:
        concerns.append(f"{summary['patients']['across_splits']} patients are in more than one split.")
    if summary["readable"] < summary["images"]:
        concerns.append(f"{summary['images'] - summary['readable']} images cannot be read.")
    return concerns

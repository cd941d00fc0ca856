"""Inspect a data set or archive: survey its images, audit the survey, and show the audit."""

import json
import textwrap
from typing import Final

import pyarrow as pa

from jobs.console.command import Result
from jobs.console.output import aligned_columns, say, show
from jobs.inspection.survey import survey_listing
from jobs.ray_runtime.session import ray_errors_explained, ray_session
from pneumonia_core.archives.archive import check_disjoint, open_archive
from pneumonia_core.archives.lister import Lister
from pneumonia_core.archives.manifests import ListingRules, check_rules_apply, is_manifest
from pneumonia_core.archives.skipped import skip_text
from pneumonia_core.archives.tables.table_files import column_names
from pneumonia_core.datasets.audit import AuditDetails, AuditSummary, GroupCounts, Sizes, audit
from pneumonia_core.datasets.labelled import LABEL_COLUMNS
from pneumonia_core.datasets.shortcuts import Shortcut
from pneumonia_core.errors import InvalidInput
from pneumonia_core.storage.files import write_bytes
from pneumonia_core.storage.location import open_location

SHOWN: Final = 5
WIDTH: Final = 80  # of a terminal, in characters


def open_data(archive: tuple[str, ...], allow_prefix: tuple[str, ...]) -> tuple[list[str], ListingRules]:
    """The archives' URIs, and rules that carry the columns with labels of a table."""
    prefixes = tuple(open_location(text).uri for text in allow_prefix)
    rules = ListingRules(_label_columns([text for text in archive if is_manifest(text)]), prefixes)
    archives = [open_archive(text, rules) for text in archive]
    check_disjoint(archives)
    if prefixes:
        check_rules_apply(archives, rules)
    return archives, rules


def _label_columns(tables: list[str]) -> tuple[str, ...]:
    """The columns with labels that all these tables have."""
    present = [column_names(table) for table in tables]
    return tuple(name for name in LABEL_COLUMNS if present and all(name in names for names in present))


def survey(
    archives: list[str], rules: ListingRules, address: str | None, num_cpus: int | None
) -> tuple[pa.Table, dict[str, int]]:
    """The facts of every listed image (`survey_listing`), and the counts of what was skipped."""
    with Lister(archives, rules) as lister:
        while not lister.wait(60):
            say(f"listed {lister.listed:,} images")
        segments = lister.take()
        skipped = lister.skip_counts
        if not segments:
            raise InvalidInput(f"no images found in {', '.join(archives)}. Check the path.")
        with ray_session(address, num_cpus), ray_errors_explained():
            return survey_listing(segments, lister.listed), skipped


def report(archives: list[str], surveyed: pa.Table, skipped: dict[str, int], output: str | None) -> Result:
    summary, details = audit(surveyed)
    document = {"archives": archives, "skipped": skipped, **summary}
    if output is not None:
        text = json.dumps({**document, "details": details}, indent=1) + "\n"
        write_bytes(open_location(output), text.encode())
    show(inspection_lines(summary, details, skipped))
    if output is not None:
        say(f"every image is named in {output}")
    return {"state": "done", **document, "output": output}


def inspection_lines(summary: AuditSummary, details: AuditDetails, skipped: dict[str, int]) -> list[str]:
    """The inspection for a person's terminal; names are as they are in the archive."""
    lines = [f"{summary['images']:,} images, {summary['readable']:,} readable"]
    lines += _class_lines(summary["classes"])
    kinds = {
        "formats": summary["formats"],
        "modes": summary["modes"],
        "quantisation": summary["quantisation"],
        "rejected": summary["rejected"],
        "skipped": {skip_text(code): number for code, number in skipped.items()},
    }
    for name, numbers in kinds.items():
        if numbers:
            lines += ["", f"{name:<14}{_listed(numbers)}"]
    lines += ["", *_size_lines(summary["sizes"])]
    lines += _shortcut_lines("pneumonia", summary["cues"])
    lines += _shortcut_lines("bacterial", summary["kind_cues"])
    lines += _group_lines("equal files", summary["duplicates"], details["duplicates"])
    lines += _group_lines("look-alikes", summary["lookalikes"], details["lookalikes"])
    if patients := summary["patients"]:
        lines += ["", f"patients: {patients['known']:,}, {patients['across_splits']} in several splits"]
        crossing = details["patients_across_splits"]
        lines += _examples([f"{one['patient']}: {', '.join(one['splits'])}" for one in crossing])
    if details["rejected"]:
        lines += ["", "cannot be read:"]
        lines += _examples([f"{one['reason']}: {_name(one['uri'])}" for one in details["rejected"]])
    lines.append("")
    for concern in summary["concerns"] or ["nothing of concern found"]:
        lines += textwrap.wrap(f"! {concern}", WIDTH, subsequent_indent="  ")
    return lines


def _group_lines(what: str, counts: GroupCounts, groups: list[list[str]]) -> list[str]:
    line = (
        f"{what}: {counts['groups']:,} groups of {counts['images']:,} images ({counts['pairs']:,} pairs), "
        f"{counts['across_classes']} across classes, {counts['across_splits']} across splits"
    )
    return ["", line, *_examples([_group(group) for group in groups])]


def _class_lines(classes: dict[str, dict[str, int]] | None) -> list[str]:
    if classes is None:
        return []
    names = sorted({name for counts in classes.values() for name in counts})
    rows = [["split", *names, "all"]]
    for split, counts in classes.items():
        rows.append([split, *(f"{counts.get(name, 0):,}" for name in names), f"{sum(counts.values()):,}"])
    return ["", *aligned_columns(rows, right=range(1, len(rows[0])))]


def _size_lines(sizes: Sizes) -> list[str]:
    ranges = {"width": sizes.get("width"), "height": sizes.get("height"), "bytes": sizes.get("bytes")}
    rows = [
        [name, *(f"{value:,.0f}" for value in (known["min"], known["median"], known["max"]))]
        for name, known in ranges.items()
        if known is not None
    ]
    return aligned_columns([["", "least", "median", "most"], *rows], right=range(1, 4)) if rows else []


def _shortcut_lines(answer: str, shortcuts: dict[str, list[Shortcut]]) -> list[str]:
    """The AUROC for `answer` of each shortcut by split, with an asterisk where it gives that away."""
    if not shortcuts:
        return []
    by_part = {
        part: {one["cue"]: f"{one['auroc']:.3f}{'*' if one['flagged'] else ' '}" for one in found}
        for part, found in shortcuts.items()
    }
    names = list(dict.fromkeys(name for found in by_part.values() for name in found))
    rows = [[f"AUROC for {answer} of", *(f"{part} " for part in by_part)]]
    rows += [[name, *(found.get(name, "– ") for found in by_part.values())] for name in names]
    return [
        "",
        *aligned_columns(rows, right=range(1, len(rows[0]))),
        "(0.5: no help; *: gives the class away)",
    ]


def _listed(counts: dict[str, int]) -> str:
    shown = [f"{name} {number:,}" for name, number in list(counts.items())[:SHOWN]]
    rest = len(counts) - len(shown)
    return ", ".join(shown) + (f", and {rest} more kinds" if rest else "")


def _examples(texts: list[str]) -> list[str]:
    rest = len(texts) - SHOWN
    return [f"  {text}" for text in texts[:SHOWN]] + ([f"  … and {rest:,} more"] if rest > 0 else [])


def _group(uris: list[str]) -> str:
    more = len(uris) - 2
    return " = ".join(map(_name, uris[:2])) + (f" and {more:,} more" if more > 0 else "")


def _name(uri: str) -> str:
    """The last parts of a URI, which are enough to find the image."""
    return "/".join(uri.split("/")[-3:])

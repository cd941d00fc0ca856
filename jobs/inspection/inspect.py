"""`pneumonia inspect`: what is in a data set or archive, what is broken, and what would mislead a training."""

import json
import textwrap
from typing import Any, Final

from jobs.console.command import Result
from jobs.console.output import aligned_columns, printable, say
from pneumonia_core.archives.manifests import ListingRules
from pneumonia_core.archives.skipped import skip_text
from pneumonia_core.errors import InvalidInput

SHOWN: Final = 5
WIDTH: Final = 80  # of a terminal, in characters


def open_data(archive: tuple[str, ...], allow_prefix: tuple[str, ...]) -> tuple[list[str], ListingRules]:
    """The archives' URIs; of a table with labels these come along."""
    from pneumonia_core.archives.archive import check_disjoint, open_archive
    from pneumonia_core.archives.manifests import check_rules_apply, is_manifest
    from pneumonia_core.storage.location import open_location

    prefixes = tuple(open_location(text).uri for text in allow_prefix)
    rules = ListingRules(_label_columns([text for text in archive if is_manifest(text)]), prefixes)
    archives = [open_archive(text, rules) for text in archive]
    check_disjoint(archives)
    if prefixes:
        check_rules_apply(archives, rules)
    return archives, rules


def _label_columns(tables: list[str]) -> tuple[str, ...]:
    """Which columns about an image all these tables have."""
    from pneumonia_core.archives.manifests import column_names
    from pneumonia_core.datasets.labelled import LABEL_COLUMNS

    present = [column_names(table) for table in tables]
    return tuple(name for name in LABEL_COLUMNS if present and all(name in names for names in present))


def survey(
    archives: list[str], rules: ListingRules, address: str | None, num_cpus: int | None
) -> tuple[Any, dict[str, int]]:
    """The facts of every listed image, and what was skipped."""
    from jobs.inspection.survey import survey_listing
    from jobs.ray_runtime.session import ray_errors_explained, ray_session
    from pneumonia_core.archives.lister import Lister

    with Lister(archives, rules) as lister:
        while not lister.wait(60):
            say(f"listed {lister.listed:,} images")
        segments = lister.take()
        skipped = lister.skip_counts
        if not segments:
            raise InvalidInput(
                f"no images found in {', '.join(printable(archive) for archive in archives)}. Check the path."
            )
        with ray_session(address, num_cpus), ray_errors_explained():
            return survey_listing(segments, lister.listed), skipped


def report(archives: list[str], surveyed: Any, skipped: dict[str, int], output: str | None) -> Result:
    from pneumonia_core.datasets.audit import audit
    from pneumonia_core.storage.files import write_bytes
    from pneumonia_core.storage.location import open_location

    summary, details = audit(surveyed)
    summary = {"archives": archives, "skipped": skipped, **summary}
    if output is not None:
        text = json.dumps({**summary, "details": details}, indent=1) + "\n"
        write_bytes(open_location(output), text.encode())
    print(inspection_table(summary, details))
    if output is not None:
        say(f"every image is named in {output}")
    return {"state": "done", **summary, "output": output}


def inspection_table(summary: dict[str, Any], details: dict[str, Any]) -> str:
    """The inspection for a person's terminal, names with control characters escaped."""
    lines = [f"{summary['images']:,} images, {summary['readable']:,} readable"]
    lines += _class_lines(summary["classes"])
    skipped = {skip_text(code): number for code, number in summary["skipped"].items()}
    counts = {**summary, "skipped": skipped}
    for name in ("formats", "modes", "quantisation", "rejected", "skipped"):
        if counts[name]:
            lines += ["", f"{name:<14}{_listed(counts[name])}"]
    lines += ["", *_size_lines(summary["sizes"])]
    lines += _cue_lines(summary["cues"])
    for name, what in (("duplicates", "equal files"), ("lookalikes", "look-alikes")):
        counts = summary[name]
        lines += [
            "",
            f"{what}: {counts['groups']:,} groups of {counts['images']:,} images ({counts['pairs']:,} pairs), "
            f"{counts['across_classes']} across classes, {counts['across_splits']} across splits",
        ]
        lines += _examples([_group(group) for group in details[name]])
    if summary["patients"]:
        lines += [
            "",
            f"patients: {summary['patients']['known']:,}, {summary['patients']['across_splits']} in several splits",
        ]
        crossing = details["patients_across_splits"]
        lines += _examples([f"{one['patient']}: {', '.join(one['splits'])}" for one in crossing])
    if details["rejected"]:
        lines += ["", "cannot be read:"]
        lines += _examples([f"{one['reason']}: {_name(one['uri'])}" for one in details["rejected"]])
    lines.append("")
    for concern in summary["concerns"] or ["nothing of concern found"]:
        lines += textwrap.wrap(f"! {concern}", WIDTH, subsequent_indent="  ")
    return "\n".join(_escaped(line) for line in lines)


def _class_lines(classes: dict[str, dict[str, int]] | None) -> list[str]:
    if classes is None:
        return []
    names = sorted({name for counts in classes.values() for name in counts})
    rows = [["split", *names, "all"]]
    for split, counts in classes.items():
        rows.append([split, *(f"{counts.get(name, 0):,}" for name in names), f"{sum(counts.values()):,}"])
    return ["", *aligned_columns(rows, right=range(1, len(rows[0])))]


def _size_lines(sizes: dict[str, Any]) -> list[str]:
    rows = [["", "least", "median", "most"]]
    for name in ("width", "height", "bytes"):
        if name in sizes:
            rows.append([name, *(f"{sizes[name][at]:,.0f}" for at in ("min", "median", "max"))])
    return aligned_columns(rows, right=range(1, 4)) if len(rows) > 1 else []


def _cue_lines(cues: dict[str, list[dict[str, Any]]]) -> list[str]:
    """AUROC of each cue by split; an asterisk where it gives the class away."""
    if not cues:
        return []
    by_part = {
        part: {one["cue"]: f"{one['auroc']:.3f}{'*' if one['flagged'] else ' '}" for one in found}
        for part, found in cues.items()
    }
    names = list(dict.fromkeys(name for found in by_part.values() for name in found))
    rows = [["AUROC for pneumonia of", *(f"{part} " for part in by_part)]]
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
    """The last parts of a URI: enough to find it by."""
    return "/".join(uri.split("/")[-3:])


def _escaped(line: str) -> str:
    return printable(line).replace("\n", "\\n")

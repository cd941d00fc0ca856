"""`pneumonia inspect`: what is in a data set or archive, what is broken, and what would mislead a training."""

import json
import textwrap
from typing import Any, Final

import click

from jobs.config import Result, job_command, run_command
from jobs.progress import printable, say
from pneumonia_core.errors import InvalidInput
from pneumonia_core.manifests import ListingRules

SHOWN: Final = 5
WIDTH: Final = 80  # of a terminal, in characters


@job_command("inspect")
@click.argument("archive", nargs=-1, required=True, metavar="DATA_OR_ARCHIVE...")
@click.option("--output", help="Write the whole inspection, every image named, to this .json file.")
@click.option(
    "--allow-prefix",
    multiple=True,
    metavar="PLACE",
    help="A manifest's images may lie beneath this place too. May be given again.",
)
@click.option("--address", help="Ray cluster. Default: RAY_ADDRESS, else Ray starts on this machine.")
@click.option("--num-cpus", type=click.IntRange(min=1), help="CPUs of the Ray started on this machine.")
def command(
    archive: tuple[str, ...],
    output: str | None,
    allow_prefix: tuple[str, ...],
    address: str | None,
    num_cpus: int | None,
) -> Result:
    """Look at every image of DATA_OR_ARCHIVE...: any archive that `score` takes, any data that `train` takes.

    Counts by split and class, sizes, encodings, broken files, equal files and look-alikes, patients in several
    splits, and how well the encoding alone would tell pneumonia from normal. No model is needed.
    """
    if output is not None and not output.endswith(".json"):
        raise InvalidInput(f"--output {output}: end the name in .json.")
    archives, rules = _open(archive, allow_prefix)
    surveyed, skipped = _survey(archives, rules, address, num_cpus)
    return _report(archives, surveyed, skipped, output)


def _open(archive: tuple[str, ...], allow_prefix: tuple[str, ...]) -> tuple[list[str], ListingRules]:
    """The archives' URIs; of a table with labels these come along."""
    from pneumonia_core.archives import check_disjoint, open_archive
    from pneumonia_core.manifests import check_rules_apply, is_manifest
    from pneumonia_core.places import open_place

    prefixes = tuple(open_place(text).uri for text in allow_prefix)
    rules = ListingRules(_label_columns([text for text in archive if is_manifest(text)]), prefixes)
    archives = [open_archive(text, rules) for text in archive]
    check_disjoint(archives)
    if prefixes:
        check_rules_apply(archives, rules)
    return archives, rules


def _label_columns(tables: list[str]) -> tuple[str, ...]:
    """Which columns about an image all these tables have."""
    from pneumonia_core.annotations import COLUMNS
    from pneumonia_core.manifests import column_names

    present = [column_names(table) for table in tables]
    return tuple(name for name in COLUMNS if present and all(name in names for names in present))


def _survey(
    archives: list[str], rules: ListingRules, address: str | None, num_cpus: int | None
) -> tuple[Any, dict[str, int]]:
    """The facts of every listed image, and what was skipped."""
    from jobs.session import ray_session
    from jobs.surveyed import survey_listing
    from jobs.work import ray_errors_explained
    from pneumonia_core.listing import Lister

    with Lister(archives, rules) as lister:
        while not lister.wait(60):
            say(f"listed {lister.listed:,} images")
        segments = lister.take()
        skipped = dict(lister.skipped)
        if not segments:
            raise InvalidInput(
                f"no images found in {', '.join(printable(archive) for archive in archives)}. Check the path."
            )
        with ray_session(address, num_cpus), ray_errors_explained():
            return survey_listing(segments, lister.listed), skipped


def _report(archives: list[str], surveyed: Any, skipped: dict[str, int], output: str | None) -> Result:
    from pneumonia_core.inspection import inspect_survey
    from pneumonia_core.places import open_place, write_bytes

    summary, details = inspect_survey(surveyed)
    summary = {"archives": archives, "skipped": skipped, **summary}
    if output is not None:
        text = json.dumps({**summary, "details": details}, indent=1) + "\n"
        write_bytes(open_place(output), text.encode())
    print(inspection_table(summary, details))
    if output is not None:
        say(f"every image is named in {output}")
    return {"state": "done", **summary, "output": output}


def inspection_table(summary: dict[str, Any], details: dict[str, Any]) -> str:
    """The inspection for a person's terminal, names with control characters escaped."""
    lines = [f"{summary['images']:,} images, {summary['readable']:,} readable"]
    lines += _class_lines(summary["classes"])
    for name in ("formats", "modes", "quantisation", "rejected", "skipped"):
        if summary[name]:
            lines += ["", f"{name:<14}{_listed(summary[name])}"]
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
    return ["", *_aligned(rows)]


def _size_lines(sizes: dict[str, Any]) -> list[str]:
    rows = [["", "least", "median", "most"]]
    for name in ("width", "height", "bytes"):
        if name in sizes:
            rows.append([name, *(f"{sizes[name][at]:,.0f}" for at in ("min", "median", "max"))])
    return _aligned(rows) if len(rows) > 1 else []


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
    return ["", *_aligned(rows), "(0.5: no help; *: gives the class away)"]


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
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


if __name__ == "__main__":
    run_command(command)

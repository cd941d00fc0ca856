"""The end of a run: every image accounted for, the parts merged, one commit, the last record."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from jobs.console.command import Result
from jobs.console.output import say
from jobs.ray_runtime.session import ray_errors_explained
from jobs.scoring.context import ScoringContext, start_ray
from jobs.scoring.micro_batches import chunks_still_needed
from pneumonia_core.archives.skipped import describe_skipped, may_hide_images
from pneumonia_core.errors import PneumoniaError
from pneumonia_core.runs.record import Run
from pneumonia_core.storage.errors import error_text
from pneumonia_core.storage.files import write_bytes
from pneumonia_core.storage.lock import LeaseLost

ROWS_PER_FILE: Final = 262_144
MERGE_HERE_ROWS: Final = 20_000


def commit_run(work: ScoringContext, run: Run, superseded: frozenset[int]) -> Result:
    """Check that every listed image is accounted for, merge the parts, and commit them once."""
    from pneumonia_core.results.commit import commit
    from pneumonia_core.runs.parts import ConservationError, done_chunks

    done = done_chunks(run.folder)
    live = chunks_still_needed(run, superseded)
    left = [ref for ref in live if ref.chunk not in done]
    if left and not work.past_deadline:
        raise ConservationError(
            f"{len(left)} chunks have no part, the first is chunk {left[0].chunk}. Nothing was committed; "
            "run the same command again."
        )
    merged = _merge(work, run, [ref for ref in live if ref.chunk in done], superseded)
    judged = work.bundle.domain is not None
    counts = _count(run, merged, _left_rows(run, left, superseded), len(superseded), judged)
    files = [part.file for part in merged if part.file.rows]
    run.save(state="staged", counts=counts, files=[file.path for file in files])
    version = None
    if files:
        version = commit(
            work.results, run.record["planned_version"], run.run_id, run.record["run_date"], files
        )
    return _finish(work, run, version)


def _left_rows(run: Run, left: Sequence[Any], superseded: frozenset[int]) -> int:
    """How many rows of these chunks no run has scored."""
    from pneumonia_core.runs.inventory import read_chunk

    if not superseded:
        return sum(ref.rows for ref in left)
    return sum(len({*read_chunk(run.folder, ref)["row_id"].to_pylist()} - superseded) for ref in left)


def _merge(work: ScoringContext, run: Run, refs: Sequence[Any], superseded: frozenset[int]) -> list[Any]:
    """The parts as a few large files under scores/; in Ray tasks where they are many."""
    from pneumonia_core.runs.parts import merge_parts

    results = run.folder.parent.parent
    scores = results.child("scores")
    per_file = max(1, ROWS_PER_FILE // run.record["configuration"]["chunk_size"])
    groups = [refs[start : start + per_file] for start in range(0, len(refs), per_file)]
    # With the version that the run is planned from: a merge that comes late, by a process that has lost the run, must not
    # replace a file that was committed meanwhile.
    planned = run.record["planned_version"]
    names = [
        f"run_date={run.record['run_date']}/{run.run_id}-{planned:06d}-{number:05d}.parquet"
        for number in range(len(groups))
    ]
    jobs = [(run.folder, scores, name, group, superseded) for name, group in zip(names, groups, strict=True)]
    if sum(ref.rows for ref in refs) <= MERGE_HERE_ROWS:
        return [merge_parts(*job) for job in jobs]
    import ray

    # Of a resumed run all may have been scored: without this Ray would join whatever cluster it finds.
    start_ray(work)
    remote: Any = ray.remote(num_cpus=1)(merge_parts)
    with ray_errors_explained():
        return list(ray.get([remote.remote(*job) for job in jobs]))


def _count(run: Run, merged: Sequence[Any], left_rows: int, superseded: int, judged: bool) -> dict[str, Any]:
    """The counts of the run; `judged` says whether the bundle tells what is out of domain. Raises ConservationError where the law does not hold."""
    from pneumonia_core.runs.parts import ConservationError

    statuses: Counter[str] = sum((part.statuses for part in merged), Counter())
    reasons: Counter[str] = sum((part.reasons for part in merged), Counter())
    findings: Counter[str] = sum((part.findings for part in merged), Counter())
    counts = {
        "listed": sum(batch.listed for batch in run.batches),
        "scored": statuses["scored"],
        "rejected": statuses["rejected"],
        "unchanged": sum(batch.unchanged for batch in run.batches) + superseded,
        "deferred": sum(batch.deferred for batch in run.batches) + left_rows,
    }
    if counts["listed"] != sum(counts[name] for name in ("scored", "rejected", "unchanged", "deferred")):
        raise ConservationError(
            f"the images do not add up: {counts}. Nothing was committed; run the same command again, or with "
            "--fresh to start the run over."
        )
    return {
        **counts,
        "reject_reasons": dict(sorted(reasons.items())),
        "findings": dict(sorted(findings.items())),
        "out_of_domain": sum(part.out_of_domain for part in merged) if judged else None,
        "bytes_read": sum(part.bytes_read for part in merged),
    }


def _finish(work: ScoringContext, run: Run, version: int | None) -> Result:
    """Write the run's last record, and its page; what it returns is what the command prints."""
    from pneumonia_core.reports.run_page import run_page

    counts = run.record["counts"]
    attempted = counts["scored"] + counts["rejected"]
    rate = counts["rejected"] / attempted if attempted else 0.0
    exit_code = 3 if rate > work.settings.max_reject_rate else 0
    seconds = time.monotonic() - work.started
    result = {
        "state": "committed",
        "run_id": run.run_id,
        "run_date": run.record["run_date"],
        "results": work.results.uri,
        "table": work.results.child("scores").uri,
        "version": version,
        "page": run.folder.child("run.html").uri,
        "model_id": run.record["configuration"]["model_id"],
        "engine": run.record.get("engine"),
        **{name: counts[name] for name in ("listed", "scored", "rejected", "unchanged", "deferred")},
        "gone": run.record.get("gone"),
        # Of a run of an earlier version it is not known.
        "skipped": run.record.get("skipped") or {},
        "reject_reasons": counts["reject_reasons"],
        "findings": counts["findings"],
        "out_of_domain": counts.get("out_of_domain"),
        "seconds": round(seconds, 1),
        "images_per_s": round(attempted / seconds, 1),
        "exit_code": exit_code,
    }
    try:
        run.save(exit_code=exit_code, version=version, result=result)
        write_bytes(run.folder.child("run.html"), run_page({**run.record, "state": "committed"}).encode())
        run.finish("committed")
    except (OSError, LeaseLost) as error:
        raise _without_record(version, error) from error
    _tell(result, rate, work.settings.max_reject_rate)
    return result


def _without_record(version: int | None, error: OSError | LeaseLost) -> PneumoniaError:
    """What can be said of a run that has committed all it had, and could not write that down."""
    rows = (
        "the run had no row to add to the table"
        if version is None
        else f"version {version} of the table has the rows of the run"
    )
    if isinstance(error, LeaseLost):
        return PneumoniaError(
            f"{rows}, but its last record was left to another process, which may have taken the run over: its lease was "
            "not renewed in time. Run the same command again: it writes the record where that is missing."
        )
    return PneumoniaError(
        f"{rows}, but its last record could not be written ({error_text(error)}). Mend it and run the same command "
        "again: it only writes the record."
    )


def finish_committed(work: ScoringContext, run: Run) -> Result | None:
    """A run that was killed between its commit and its last record only gets that record."""
    from pneumonia_core.results.commit import committed_version

    if run.record["state"] != "staged":
        return None
    version = committed_version(work.results, run.run_id, run.record["planned_version"])
    return None if version is None else _finish(work, run, version)


def _tell(result: Result, rate: float, max_rate: float) -> None:
    parts = [
        f"{result[name]:,} {name}" for name in ("scored", "rejected", "unchanged", "deferred") if result[name]
    ]
    done = "no new row for" if result["version"] is None else "committed"
    version = "" if result["version"] is None else f" version {result['version']}"
    say(f"{done} {result['table']}{version}: {', '.join(parts) or 'none'} of {result['listed']:,} listed")
    if result["reject_reasons"]:
        say(
            "rejected: "
            + ", ".join(f"{count:,} {reason}" for reason, count in result["reject_reasons"].items())
        )
    if result["findings"]:
        say("findings: " + ", ".join(f"{count:,} {name}" for name, count in result["findings"].items()))
    if result["out_of_domain"]:
        share = result["out_of_domain"] / result["scored"]
        say(
            f"out of domain: {result['out_of_domain']:,} of the scored images ({share:.1%}) are unlike the "
            "training data; do not trust their scores (in_domain is false)"
        )
    report_skipped(result["skipped"])
    say(f"the run's page: {result['page']}")
    if rate > max_rate:
        say(
            f"warning: {rate:.1%} of the images were rejected, more than --max-reject-rate {max_rate:.1%} allows"
        )


def report_skipped(skipped: Mapping[str, int]) -> None:
    """What the listing left out: a warning where images may be in it, a count of the rest."""
    hiding = may_hide_images(skipped)
    if hiding:
        say(f"warning: images may be missing: skipped {describe_skipped(hiding)}")
    rest = {code: number for code, number in skipped.items() if code not in hiding}
    if rest:
        say(f"skipped: {describe_skipped(rest)}")

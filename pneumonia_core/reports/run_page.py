"""The page of a scoring run: the outcome of every image, in one file without script or link."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pneumonia_core.archives.skipped import may_hide_images, skip_text
from pneumonia_core.drift import BINS, measure_drift
from pneumonia_core.errors import REJECT_REASONS
from pneumonia_core.findings import CLASSES
from pneumonia_core.gates import Drift
from pneumonia_core.reports.render import render_html

_THIS_RUN: Final = "this run"
_RUNS_BEFORE: Final = "runs before"
OUTCOMES: Final = {
    "scored": "have probabilities and a finding",
    "rejected": "could not be scored; the row says why",
    "unchanged": "have a row from an earlier run",
    "deferred": "left for the next run",
}


def run_page(run: Mapping[str, Any]) -> str:
    """One self-contained HTML page of a scoring run, from the content of its run.json.

    It needs `run_id`, `state` and `run_date`. Where present, it also shows `created_at`, `updated_at`,
    `model`, `engine`, `precision`, `engine_reason`, `actors_per_gpu`, `actors_per_gpu_reason`, `exit_code`,
    `configuration`, `versions`, `gone`, `gates` (alarms with gate, action, text), `accepted`, `skipped`
    ({code: number}), `counts` (listed, scored, rejected, unchanged, deferred, reject_reasons, findings,
    out_of_domain, bytes_read, score_histogram), `score_histograms`
    (before, validation), `timings` (as of runs.outcome.timings) and `result` (seconds, images_per_s,
    table, version). Names are escaped.
    """
    counts, result = run.get("counts") or {}, run.get("result") or {}
    reasons = counts.get("reject_reasons") or {}
    findings = counts.get("findings") or {}
    skipped = run.get("skipped") or {}
    hiding = may_hide_images(skipped)
    return render_html(
        "run.html",
        title=f"Run {run['run_id']}",
        run=run,
        gates=run.get("gates") or [],
        accepted=bool(run.get("accepted")),
        result=result,
        counts={name: counts.get(name, 0) for name in ("listed", *OUTCOMES)},
        outcomes=OUTCOMES,
        findings=[(name, findings.get(name, 0)) for name in CLASSES] if findings else [],
        out_of_domain=counts.get("out_of_domain"),
        scores=_score_rows(run),
        scores_of=[name for name, _ in _histograms(run)],
        drift=_drift(run),
        reasons=[
            _reason_row(reason, number)
            for reason, number in sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
        ],
        skipped=[
            (skip_text(code), number, code in hiding)
            for code, number in sorted(
                skipped.items(), key=lambda item: (item[0] not in hiding, -item[1], item[0])
            )
        ],
        hiding=bool(hiding),
        bytes_read=counts.get("bytes_read"),
        timings=run.get("timings"),
        stages=_stage_rows(run.get("timings") or {}),
        facts=_facts(run, result),
    )


def _facts(run: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, dict[str, object]]:
    """Tables of further facts by heading, without unknown values."""
    about = {
        "state": run["state"],
        "exit code": run.get("exit_code"),
        "date of the rows": run["run_date"],
        "begun": run.get("created_at"),
        "last recorded": run.get("updated_at"),
        "model": run.get("model"),
        "engine": run.get("engine"),
        "precision": run.get("precision"),
        "why these": run.get("engine_reason"),
        "actors on each GPU": run.get("actors_per_gpu"),
        "why so many": run.get("actors_per_gpu_reason"),
        "table": result.get("table"),
        "version of the table": result.get("version"),
        "images gone from the archive": run.get("gone"),
    }
    tables = {
        "Run": about,
        "Configuration": run.get("configuration") or {},
        "Versions": run.get("versions") or {},
    }
    known = {
        heading: {name: thing for name, thing in rows.items() if thing is not None}
        for heading, rows in tables.items()
    }
    return {heading: rows for heading, rows in known.items() if rows}


def _histograms(run: Mapping[str, Any]) -> list[tuple[str, Sequence[int]]]:
    """The known histograms of p_pneumonia, this run's first; none where nothing was scored."""
    others = run.get("score_histograms") or {}
    of_run = (run.get("counts") or {}).get("score_histogram") or ()
    named = [
        (_THIS_RUN, of_run),
        (_RUNS_BEFORE, others.get("before") or ()),
        ("validation", others.get("validation") or ()),
    ]
    return [(name, numbers) for name, numbers in named if any(numbers)] if any(of_run) else []


def _drift(run: Mapping[str, Any]) -> Drift | None:
    histograms = dict(_histograms(run))
    return measure_drift(histograms.get(_THIS_RUN, ()), histograms.get(_RUNS_BEFORE, ()))


def _score_rows(run: Mapping[str, Any]) -> list[tuple[str, list[float]]]:
    """Of each bin of p_pneumonia its range and its share in each of the histograms."""
    shares = [[number / sum(numbers) for number in numbers] for _, numbers in _histograms(run)]
    return [
        (f"{bin_ / BINS:.1f} to {(bin_ + 1) / BINS:.1f}", list(row))
        for bin_, row in enumerate(zip(*shares, strict=True))
    ]


def _stage_rows(timings: Mapping[str, Any]) -> list[tuple[str, str, float, float, float | None]]:
    """Of each stage of the actors, then of the tasks that decode: who, which, seconds, their share, and those
    of one actor on average. None where it took no time."""
    rows = []
    for who, name, count in (("actors", "stages", timings.get("actors")), ("decoding tasks", "tasks", None)):
        seconds = timings.get(name) or {}
        total = sum(seconds.values())
        rows += [
            (who, stage, each, each / total, each / count if count else None)
            for stage, each in seconds.items()
            if each
        ]
    return rows


def _reason_row(reason: str, number: int) -> tuple[str, str, str, int]:
    """A reason with its stage, meaning and number. A later version may have written an unknown reason."""
    known = REJECT_REASONS.get(reason)
    return (reason, known.stage, known.meaning, number) if known else (reason, "–", "", number)

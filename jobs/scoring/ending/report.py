"""What a person reads at the end of a run."""

import shlex
from collections.abc import Mapping

from jobs.console.output import say
from pneumonia_core.archives.skipped import describe_skipped, may_hide_images
from pneumonia_core.runs.outcome.limit import in_one_line
from pneumonia_core.runs.record import RunResult


def report_committed(result: RunResult, reject_rate: float, max_reject_rate: float) -> None:
    """Print the outcome of the run for a person."""
    outcomes = {name: getattr(result, name) for name in ("scored", "rejected", "unchanged", "deferred")}
    counted = ", ".join(f"{count:,} {name}" for name, count in outcomes.items() if count) or "none"
    table = f"committed {result.table} version {result.version}"
    if result.version is None:
        table = f"no new row for {result.table}"
    say(f"{table}: {counted} of {result.listed:,} listed")
    if not result.listing_complete:
        say(
            f"the listing is not complete: the deadline came after {result.listed:,} images; the next run "
            "with a deadline lists on from there"
        )
    if result.reject_reasons:
        say("rejected: " + _in_line(result.reject_reasons))
    if result.findings:
        say("findings: " + _in_line(result.findings))
    if result.out_of_domain:
        share = result.out_of_domain / result.scored
        say(
            f"out of domain: {result.out_of_domain:,} of the scored images ({share:.1%}) are unlike the "
            "training data; do not trust their scores (in_domain is false)"
        )
    report_skipped(result.skipped)
    say(f"the run's page: {result.page}")
    if result.timings is not None:
        say(in_one_line(result.timings))
    for alarm in result.gates:
        say(f"warning: {alarm.text}")
    if reject_rate > max_reject_rate:
        say(
            f"warning: {reject_rate:.1%} of the images were rejected, more than --max-reject-rate "
            f"{max_reject_rate:.1%} allows"
        )


def report_held(result: RunResult) -> None:
    """Say why a run is held, and what to do with it."""
    for alarm in result.gates:
        say(f"{'held' if alarm.action == 'hold' else 'warning'}: {alarm.text}")
    if not result.listing_complete:
        say(f"the listing is not complete: the deadline came after {result.listed:,} images")
    report_skipped(result.skipped)
    say(f"the run's page: {result.page}")
    if result.timings is not None:
        say(in_one_line(result.timings))
    command = f"pneumonia score --results {shlex.quote(result.results)} --accept {result.run_id}"
    say(
        f"run {result.run_id} is held: nothing was committed, and what it scored is kept. Commit it with "
        f"`{command}`. Other runs do not wait for it; they score its images again."
    )


def _in_line(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def report_skipped(skipped: Mapping[str, int]) -> None:
    """Print what the listing skipped: a warning for what may hold images, a count of the rest."""
    hiding = may_hide_images(skipped)
    if hiding:
        say(f"warning: images may be missing: skipped {describe_skipped(hiding)}")
    rest = {code: number for code, number in skipped.items() if code not in hiding}
    if rest:
        say(f"skipped: {describe_skipped(rest)}")

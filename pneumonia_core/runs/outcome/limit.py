"""What limits a run, from its timings: one word and one sentence."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final, Literal

from pneumonia_core.runs.outcome.timings import RunTimings, StageSeconds

Limit = Literal["reading", "decoding", "engine", "writing", "start", "nodes", "listing", "few chunks"]

_WHAT: Final[dict[Limit, tuple[str, str]]] = {
    "reading": ("waiting for files to be read", "a storage that answers faster, or more workers, would help"),
    "decoding": ("decoding images", "more CPUs would help"),
    "engine": ("the engine", "a faster engine or precision, or more processors, would help"),
    "writing": ("writing and committing results", "results on a faster storage would help"),
    "start": ("starting", "a running cluster, or more images, would help"),
    "nodes": ("waiting for nodes", "a cluster that has its nodes already would help"),
    "listing": ("waiting for the listing", "a storage that lists faster would help"),
    "few chunks": ("workers without a chunk", "more images, or a smaller --chunk-size, would help"),
}
_OF_STAGES: Final[dict[str, Limit]] = {
    "read": "reading",
    "decode": "decoding",
    "infer": "engine",
    "write": "writing",
    "load": "start",
    "idle": "few chunks",
}


def concluded(scored: RunTimings | None, last: RunTimings) -> RunTimings | None:
    """The timings of a run with the `last` steps of its command, and what limits it.

    None where no worker has `scored`.
    """
    if scored is None:
        return None
    timings = scored + last
    word, why = _largest(limit_shares(timings))
    return replace(timings, limit=word, why=why)


def limit_of_workers(timings: RunTimings) -> tuple[Limit, str]:
    """What limits a run while its workers score: a word and a sentence.

    Whatever start, commit and opening the engines take: that is done once, however many images there are.
    """
    opened = replace(timings, stages=replace(timings.stages, load=0.0))
    return _largest(_shares_of_workers(opened))


def _largest(shares: Mapping[Limit, float]) -> tuple[Limit, str]:
    word = max(shares, key=lambda each: shares[each])
    what, remedy = _WHAT[word]
    return word, f"{what} took {shares[word]:.0%} of the time: {remedy}"


def limit_shares(timings: RunTimings) -> dict[Limit, float]:
    """The share of each possible limit in the seconds of a run: no two count the same second.

    While workers score, a second is divided as theirs are. The rest of the seconds is the driver's.
    """
    steps = timings.steps
    written = steps.get("merge", 0.0) + steps.get("commit", 0.0)
    scoring = max(steps.get("score", 0.0) - timings.listing_s, 0.0)
    nodes = steps.get("nodes", 0.0)
    start = max(timings.seconds - written - scoring - nodes - timings.listing_s, 0.0)
    seconds: dict[Limit, float] = dict.fromkeys(_WHAT, 0.0)
    seconds |= {"writing": written, "nodes": nodes, "start": start, "listing": timings.listing_s}
    for limit, share in _shares_of_workers(timings).items():
        seconds[limit] += scoring * share
    return {limit: each / max(timings.seconds, 1e-9) for limit, each in seconds.items()}


def _shares_of_workers(timings: RunTimings) -> dict[Limit, float]:
    """The shares of the actors' seconds. Where an engine waits for tasks that decode, theirs in its place."""
    shares = _shares(timings.stages)
    if timings.tasks.total:
        idle = shares.pop("few chunks")
        for limit, share in _shares(timings.tasks).items():
            shares[limit] = shares.get(limit, 0.0) + idle * share
    return shares


def _shares(stages: StageSeconds) -> dict[Limit, float]:
    if not (total := stages.total):
        # Too short to be measured.
        return {"few chunks": 1.0}
    return {_OF_STAGES[stage]: seconds / total for stage, seconds in vars(stages).items()}


def in_one_line(timings: RunTimings) -> str:
    """The timings for a person, in one line."""
    actors = "one actor" if timings.actors == 1 else f"{timings.actors:,} actors"
    rate = f"{timings.scored_per_s:.1f} images/s while {actors} scored"
    shares = _shares(timings.stages + timings.tasks)
    divided = ", ".join(
        f"{stage} {shares[limit]:.0%}" for stage, limit in _OF_STAGES.items() if shares.get(limit, 0) >= 0.005
    )
    limit = f"; limited by {timings.limit}: {timings.why}" if timings.limit else ""
    return f"{rate} ({divided}){limit}"

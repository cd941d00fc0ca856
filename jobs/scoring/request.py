"""Reads the options of a scoring command: what to score, checked, and how to run it."""

import datetime

from jobs.console.dates import today
from jobs.scoring.context import ExecutionOptions
from jobs.scoring.options import ScoreOptions
from pneumonia_core.archives.archive import check_disjoint, open_archive
from pneumonia_core.archives.manifests import ListingRules, check_rules_apply
from pneumonia_core.bundles.bundle import Bundle
from pneumonia_core.bundles.choice import check_engine
from pneumonia_core.errors import InvalidInput
from pneumonia_core.gates import parse_gates
from pneumonia_core.results.table import check_carried
from pneumonia_core.runs.record import RunRequest
from pneumonia_core.storage.location import open_location


def make_request(options: ScoreOptions, bundle: Bundle, rules: ListingRules | None = None) -> RunRequest:
    """The request of a run with this bundle. `rules`, where given, replace those of the options.

    Raises InvalidInput unless the archives exist and the options are compatible.
    """
    rules = rules or _listing_rules(options)
    check_carried(rules.carry)
    archives = [open_archive(text, rules) for text in options.archive]
    check_disjoint(archives)
    check_rules_apply(archives, rules)
    check_engine(bundle, options.engine)
    _check_batch_size(options)
    return RunRequest(
        archives=tuple(archives),
        model=options.model,
        model_id=bundle.model_id,
        engine=options.engine,
        precision=options.precision,
        rescore=options.rescore,
        retry_rejected=options.retry_rejected,
        limit=options.limit,
        chunk_size=options.chunk_size,
        run_date=parse_date(options.date, options.timezone),
        date_is_given=options.date is not None,
        rules=rules,
        trust_chest=options.trust_chest,
        batch_size=options.batch_size,
    )


def execution_options(options: ScoreOptions) -> ExecutionOptions:
    """The options that change no row. Raises InvalidInput where `actors` or a gate cannot be read."""
    return ExecutionOptions(
        address=options.address,
        num_cpus=options.num_cpus,
        shape=options.shape,
        actors=parse_actors(options.actors),
        decode_cpus=options.decode_cpus,
        actor_cpus=options.actor_cpus,
        actor_gpus=options.actor_gpus,
        deadline_s=options.deadline,
        max_reject_rate=options.max_reject_rate,
        gates=parse_gates(options.gate),
        fresh=options.fresh,
        cache=open_location(options.cache) if options.cache is not None else None,
    )


def _check_batch_size(options: ScoreOptions) -> None:
    if options.batch_size is not None and options.batch_size > options.chunk_size:
        raise InvalidInput(
            f"--batch-size {options.batch_size}: a batch is never of more than one chunk, which has "
            f"{options.chunk_size} images. Give a smaller one, or a larger --chunk-size."
        )


def _listing_rules(options: ScoreOptions) -> ListingRules:
    names = (name.strip() for name in (options.carry or "").split(","))
    carry = tuple(dict.fromkeys(name for name in names if name))
    return ListingRules(carry, tuple(open_location(text).uri for text in options.allow_prefix))


def parse_actors(text: str | None) -> tuple[int, int] | None:
    """The least and the most actors in `2,8` or `2`; None without a text. Raises InvalidInput."""
    if text is None:
        return None
    try:
        least, _, most = text.partition(",")
        pair = int(least), int(most or least)
    except ValueError:
        pair = 0, 0
    if not 1 <= pair[0] <= pair[1]:
        raise InvalidInput(f"--actors {text!r}: write one number, or the least and the most: 2,8.")
    return pair


def parse_date(text: str | None, timezone: str) -> str:
    """The ISO date of the text; today in a time zone, where there is none. Raises InvalidInput."""
    if text is None:
        return today(timezone)
    try:
        return datetime.date.fromisoformat(text).isoformat()
    except ValueError:
        raise InvalidInput(f"--date {text!r} is not a date. Write it as 2026-01-31.") from None

"""The request of a scoring run, made from a command's arguments and checked."""

import datetime
from typing import Final

from pneumonia_core.archives.archive import check_disjoint, open_archive
from pneumonia_core.archives.manifests import ListingRules, check_rules_apply
from pneumonia_core.bundles.bundle import choose_engine, open_bundle
from pneumonia_core.errors import InvalidInput
from pneumonia_core.results.table import check_carried
from pneumonia_core.runs.record import RunRequest

CHUNK_SIZE: Final = 256
_NO_RULES: Final = ListingRules()


def make_request(
    archive: tuple[str, ...],
    model: str,
    *,
    engine: str = "auto",
    precision: str = "auto",
    date: str | None = None,
    retry_rejected: bool = False,
    rescore: str | None = None,
    limit: int | None = None,
    chunk_size: int = CHUNK_SIZE,
    rules: ListingRules = _NO_RULES,
) -> RunRequest:
    """The request. Raises InvalidInput unless the archives and the bundle exist and the options go together."""
    check_carried(rules.carry)
    archives = [open_archive(text, rules) for text in archive]
    check_disjoint(archives)
    check_rules_apply(archives, rules)
    bundle = open_bundle(model)
    choose_engine(bundle, engine)
    return RunRequest(
        archives=tuple(archives),
        model=model,
        model_id=bundle.model_id,
        engine=engine,
        precision=precision,
        rescore=rescore,
        retry_rejected=retry_rejected,
        limit=limit,
        chunk_size=chunk_size,
        run_date=parse_date(date),
        date_is_given=date is not None,
        rules=rules,
    )


def parse_date(text: str | None) -> str:
    """The ISO date of the text; today, UTC, where there is none. Raises InvalidInput."""
    if text is None:
        return datetime.datetime.now(datetime.UTC).date().isoformat()
    try:
        return datetime.date.fromisoformat(text).isoformat()
    except ValueError:
        raise InvalidInput(f"--date {text!r} is not a date. Write it as 2026-01-31.") from None

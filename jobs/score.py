"""Score archives of chest X-rays into the results table: list, plan, score, check, commit."""

import contextlib
import datetime
import time
from typing import Any, Final

import click

from jobs.conclude import any_model_counts, commit_run, finish_committed, remember_rescore, tell_skipped
from jobs.config import Result, job_command, parse_duration_s, run_command
from jobs.progress import printable, say
from jobs.run import Order, Run, last_committed, open_run
from jobs.waves import score_listing
from jobs.work import Settings, Work, stopping_on_sigterm
from pneumonia_core.errors import InvalidInput, PneumoniaError
from pneumonia_core.manifests import ListingRules
from pneumonia_core.places import Place, error_text

CHUNK_SIZE: Final = 256
_NO_RULES: Final = ListingRules()


def score_archives(results: Place, order: Order, settings: Settings) -> Result:
    """Carry out an order: finish its unfinished run if there is one, then do tonight's.

    Returns the result of the last run as the JSON object that the command prints.
    """
    from pneumonia_core.bundle import open_bundle

    with contextlib.ExitStack() as session:
        work = Work(results, order, settings, open_bundle(order.model), session)
        with stopping_on_sigterm(work):
            while True:
                result, run = _score_once(work)
                if not run.answers(order):
                    say(f"recorded the run {run.run_id}, whose rows the table had; now to what was asked")
                    continue
                if not run.resumed or result["run_date"] == order.run_date:
                    return result
                if work.past_deadline:
                    say(
                        f"finished the night of {result['run_date']}; the deadline leaves no time for {order.run_date}"
                    )
                    return result
                say(f"finished the night of {result['run_date']}; now that of {order.run_date}")


def _score_once(work: Work) -> tuple[Result, Run]:
    """One run from listing to commit, begun before or now. Returns its result with it."""
    from pneumonia_core.planning import Planner
    from pneumonia_core.results import add_carried_columns

    table = add_carried_columns(work.results, work.order.rules.carry)
    with open_run(work.results, work.order, table.version(), work.settings.fresh) as run:
        say(f"{'resuming' if run.resumed else 'run'} {run.run_id}, date {run.record['run_date']}")
        if run.resumed and (result := finish_committed(work, run)):
            return result, run
        with Planner(run.folder, table, _rules(work, run, table)) as planner:
            superseded = _align_with_table(run, table, planner)
            score_listing(work, run, planner, superseded)
            if (result := _nothing_new(work, run, planner)) is not None:
                return result, run
            planner.check_inventory(run.batches)
        return commit_run(work, run, superseded), run


def _rules(work: Work, run: Run, table: Any) -> Any:
    """Which images are to be scored; asks for --rescore where a new model meets a table with rows."""
    from pneumonia_core.planning import Planner, PlanningRules

    order = work.order
    if "any_model" not in run.record:
        rules = PlanningRules(order.model_id)
        try:
            with Planner(run.folder, table, rules) as planner:
                any_model = any_model_counts(work.results, order, planner)
        except InvalidInput:
            run.discard()
            raise
        remember_rescore(work.results, order)
        run.save(any_model=any_model)
    return PlanningRules(order.model_id, run.record["any_model"], order.retry_rejected, order.limit)


def _align_with_table(run: Run, table: Any, planner: Any) -> frozenset[int]:
    """The rows of a resumed run that another run has committed meanwhile; the run is planned anew from
    the table's present version."""
    if run.record["planned_version"] == table.version() and not run.record.get("superseded"):
        return frozenset()
    superseded: frozenset[int] = planner.superseded(run.batches) if run.batches else frozenset()
    if superseded:
        say(f"{len(superseded):,} images were scored by another run meanwhile: unchanged")
    run.save(planned_version=table.version(), superseded=len(superseded))
    return superseded


def _nothing_new(work: Work, run: Run, planner: Any) -> Result | None:
    """The result where there is no row to write and nothing went: the last committed run stands."""
    if not run.record["listing_complete"]:
        # The deadline came: what was not listed may be new, or gone.
        run.record["gone"] = None
        return None
    gone, digest = planner.write_gone(work.order.archives, run.batches)
    run.record.update(gone=gone, gone_digest=digest)
    if any(batch.to_score or batch.deferred for batch in run.batches):
        return None
    last = last_committed(work.results, run.record["configuration"])
    if last is None or (last.get("gone"), last.get("gone_digest")) != (gone, digest):
        return None
    listed = sum(batch.listed for batch in run.batches)
    run.discard()
    say(f"nothing to score: all {listed:,} images are unchanged since run {last['run_id']}")
    skipped = run.record.get("skipped") or {}
    tell_skipped(skipped)
    result = dict(last["result"])
    if not (work.order.date_is_given and last["run_date"] == work.order.run_date):
        result.update(
            scored=0,
            rejected=0,
            deferred=0,
            listed=listed,
            unchanged=listed,
            reject_reasons={},
            findings={},
            seconds=round(time.monotonic() - work.started, 1),
            images_per_s=0.0,
        )
        if last["run_date"] != work.order.run_date:
            # That too many were rejected then was said in that night.
            result["exit_code"] = 0
        result.update(out_of_domain=None if work.bundle.domain is None else 0, skipped=skipped)
    return {**result, "nothing_new": True}


def make_order(
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
) -> Order:
    """What the command's arguments ask for, checked: archives and bundle are there, and the options go together."""
    from pneumonia_core.archives import check_disjoint, open_archive
    from pneumonia_core.bundle import open_bundle
    from pneumonia_core.engines import choose_engine
    from pneumonia_core.manifests import check_rules_apply
    from pneumonia_core.results import check_carried

    check_carried(rules.carry)
    archives = [open_archive(text, rules) for text in archive]
    check_disjoint(archives)
    check_rules_apply(archives, rules)
    bundle = open_bundle(model)
    choose_engine(bundle, engine)
    return Order(
        archives=tuple(archives),
        model=model,
        model_id=bundle.model_id,
        engine=engine,
        precision=precision,
        rescore=rescore,
        retry_rejected=retry_rejected,
        limit=limit,
        chunk_size=chunk_size,
        run_date=_parse_date(date),
        date_is_given=date is not None,
        rules=rules,
    )


def _parse_columns(text: str | None) -> tuple[str, ...]:
    """The names in `a,b`, each once."""
    names = (name.strip() for name in (text or "").split(","))
    return tuple(dict.fromkeys(name for name in names if name))


def _parse_date(text: str | None) -> str:
    if text is None:
        return datetime.datetime.now(datetime.UTC).date().isoformat()
    try:
        return datetime.date.fromisoformat(text).isoformat()
    except ValueError:
        raise InvalidInput(f"--date {text!r} is no date. Write it as 2026-01-31.") from None


def _parse_actors(text: str | None) -> tuple[int, int] | None:
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


@job_command("score")
@click.argument("archive", nargs=-1, required=True)
@click.option("--model", required=True, help="Bundle to score with; PATH@sha256:HEX pins it.")
@click.option("--results", required=True, help="Folder of the results: the table is in its scores/.")
@click.option("--engine", default="auto", show_default=True, help="openvino, tensorflow or auto.")
@click.option("--precision", type=click.Choice(["auto", "float32"]), default="auto", show_default=True)
@click.option("--date", help="Logical date of the run, 2026-01-31. Default: today, UTC.")
@click.option("--retry-rejected", is_flag=True, help="Try every rejected image again.")
@click.option(
    "--rescore", type=click.Choice(["all", "none"]), help="What a new model does with images that have rows."
)
@click.option("--limit", type=click.IntRange(min=1), help="Score at most so many images, defer the rest.")
@click.option("--deadline", help="Commit what is done after so long (90s, 30m, 6h), defer the rest.")
@click.option("--dry-run", is_flag=True, help="Say what would be scored, and stop.")
@click.option("--fresh", is_flag=True, help="Abandon an unfinished run and start over.")
@click.option(
    "--max-reject-rate",
    type=click.FloatRange(0, 1),
    default=1.0,
    show_default=True,
    help="More rejects: exit 3.",
)
@click.option(
    "--chunk-size",
    type=click.IntRange(1, 4096),
    default=CHUNK_SIZE,
    show_default=True,
    help="Images per chunk.",
)
@click.option("--carry", metavar="A,B", help="Columns of a manifest that go through to the table, as text.")
@click.option(
    "--allow-prefix",
    multiple=True,
    metavar="PLACE",
    help="A manifest's images may lie beneath this place too. May be given again.",
)
@click.option("--shape", type=click.Choice(["auto", "cpu", "gpu"]), default="auto", show_default=True)
@click.option("--actors", help="Number of scoring actors, or least,most.")
@click.option(
    "--actor-cpus",
    type=click.FloatRange(min=0.1),
    help="CPUs of a scoring actor (shape cpu). Default: those of a node, up to 8. Less for very small images.",
)
@click.option("--decode-cpus", type=click.FloatRange(min=0.1), help="CPUs of a decoding task (shape gpu).")
@click.option("--address", help="Ray cluster. Default: RAY_ADDRESS, else Ray starts on this machine.")
@click.option("--num-cpus", type=click.IntRange(min=1), help="CPUs of the Ray started on this machine.")
def command(
    archive: tuple[str, ...],
    model: str,
    results: str,
    engine: str,
    precision: str,
    date: str | None,
    retry_rejected: bool,
    rescore: str | None,
    limit: int | None,
    deadline: str | None,
    dry_run: bool,
    fresh: bool,
    max_reject_rate: float,
    chunk_size: int,
    carry: str | None,
    allow_prefix: tuple[str, ...],
    shape: str,
    actors: str | None,
    actor_cpus: float | None,
    decode_cpus: float | None,
    address: str | None,
    num_cpus: int | None,
) -> Result:
    """Score every chest X-ray of ARCHIVE... that the results do not have yet.

    An archive is a folder or bucket with images, tars and zips in it, one such file, or a manifest: a Parquet
    or CSV table with a column `uri`.

    One row for each image: the probabilities of normal, bacterial and viral pneumonia, or why there are
    none. The same command resumes a run that died, and scores only what is new or changed.
    """
    from jobs.dry_run import dry_run as plan_only
    from pneumonia_core.places import make_folder, open_place

    rules = ListingRules(_parse_columns(carry), tuple(open_place(text).uri for text in allow_prefix))
    order = make_order(
        archive,
        model,
        engine=engine,
        precision=precision,
        date=date,
        retry_rejected=retry_rejected,
        rescore=rescore,
        limit=limit,
        chunk_size=chunk_size,
        rules=rules,
    )
    settings = Settings(
        address=address,
        num_cpus=num_cpus,
        shape=shape,
        actors=_parse_actors(actors),
        decode_cpus=decode_cpus,
        actor_cpus=actor_cpus,
        deadline_s=None if deadline is None else parse_duration_s(deadline),
        max_reject_rate=max_reject_rate,
        fresh=fresh,
    )
    place = open_place(results)
    if dry_run:
        return plan_only(place, order)
    make_folder(place)
    try:
        return score_archives(place, order, settings)
    except OSError as error:
        raise PneumoniaError(
            f"{error_text(error)} while working on {printable(place.uri)}. Nothing was committed; mend it and "
            "run the same command again."
        ) from error


if __name__ == "__main__":
    run_command(command)

"""`pneumonia models list|promote|rollback DIR`: which bundle of a folder is in production."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobs.console.command import Result, job_command, run_command
from jobs.console.options import LocationType
from jobs.console.output import aligned_columns, say, show
from pneumonia_core.errors import InvalidInput
from pneumonia_core.system.printable import printable

if TYPE_CHECKING:
    from pneumonia_core.bundles.production import KeptBundle, Promotion

_HEADER = ["", "bundle", "network", "image size", "trained on", "engines", "written (UTC)"]
_RIGHT = range(3, 5)


@job_command("models")
@click.argument("action", type=click.Choice(["list", "promote", "rollback"]))
@click.argument("folder", metavar="DIR", type=LocationType(folder=True))
@click.argument("name", metavar="[BUNDLE]", required=False)
def command(action: str, folder: str, name: str | None) -> Result:
    """List the bundles in DIR, or choose the one that `--model DIR/production` scores with.

    promote DIR BUNDLE puts a bundle of DIR into production, after a check of all its hashes. rollback goes
    back to the one before. A run that has begun goes on with the bundle that it began with. A model that is
    new to a table is asked about: `score --rescore all|none`.
    """
    # Here, because `pneumonia models --help` needs neither NumPy nor the bundle's reader.
    from pneumonia_core.bundles.production import list_bundles, promote, roll_back

    models = Path(folder)
    if (action == "promote") != (name is not None):
        raise InvalidInput(f"`models {action}` takes DIR{' and a bundle in it' * (action == 'promote')}.")
    if action == "list":
        return _listed(list_bundles(models))
    if name is not None:
        return _changed(models, promote(models, name))
    return _changed(models, roll_back(models))


def _listed(bundles: list["KeptBundle"]) -> Result:
    for kept in bundles:
        if kept.problem is not None:
            say(f"warning: {printable(kept.problem)}")
    whole = [kept for kept in bundles if kept.bundle is not None]
    if whole:
        show(aligned_columns([_HEADER, *(_row(kept) for kept in whole)], _RIGHT))
    production = next((kept.name for kept in bundles if kept.in_production), None)
    if production is None:
        say("no bundle is in production: `pneumonia models promote DIR BUNDLE` chooses one")
    return {"bundles": [_as_json(kept) for kept in bundles], "production": production}


def _row(kept: "KeptBundle") -> list[str]:
    assert kept.bundle is not None
    bundle = kept.bundle
    images = bundle.spec.training.get("images", {}).get("training")
    return [
        "production" if kept.in_production else "",
        printable(kept.name),
        bundle.spec.network,
        str(bundle.image_size),
        "" if images is None else f"{images:,}",
        ", ".join(bundle.engines),
        "" if kept.written_at is None else f"{kept.written_at:%Y-%m-%d %H:%M}",
    ]


def _as_json(kept: "KeptBundle") -> dict[str, Any]:
    bundle = kept.bundle
    return {
        "bundle": kept.name,
        "model_id": None if bundle is None else bundle.model_id,
        "network": None if bundle is None else bundle.spec.network,
        "engines": [] if bundle is None else list(bundle.engines),
        "in_production": kept.in_production,
        "problem": kept.problem,
    }


def _changed(models: Path, promotion: "Promotion") -> Result:
    name, before = promotion.bundle.path.name, promotion.before
    was = "nothing was in production" if before is None else f"before: {printable(before)}"
    already = name == before
    say(f"in production {'already' if already else 'now'}: {printable(name)}{'' if already else f' ({was})'}")
    say(f"score with it: --model {printable(str(models / 'production'))}")
    return {
        "state": "done",
        "bundle": name,
        "model_id": promotion.bundle.model_id,
        "before": before,
    }


if __name__ == "__main__":
    run_command(command)

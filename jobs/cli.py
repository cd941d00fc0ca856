"""The `pneumonia` command. It imports a job only when that is called, so that help is instant."""

import importlib

import click
from click.exceptions import NoSuchCommand

from pneumonia_core import __version__

# name: (module and attribute of the click command, help)
COMMANDS = {
    "demo": ("jobs.demo:command", "The whole loop on synthetic X-rays: train, evaluate, score."),
    "train": ("jobs.train:command", "Fine-tune a ResNet on labelled X-rays and write a bundle."),
    "evaluate": ("jobs.evaluate:command", "Measure a bundle on a labelled set; JSON and one HTML page."),
    "recalibrate": (
        "jobs.recalibrate:command",
        "Fit a bundle to local images: a new bundle with their thresholds and calibration.",
    ),
    "export": ("jobs.export:command", "A new bundle with one more engine: the network in int8."),
    "score": ("jobs.score:command", "Score archives of X-rays into a Delta table."),
    "inspect": (
        "jobs.inspect:command",
        "Contents of a data set or archive, broken files, what gives the class away.",
    ),
    "bench": ("jobs.bench:command", "What this cluster can decode, compute and score, and what limits it."),
    "latest": ("jobs.latest:command", "One row for each image that is still in its archive."),
    "runs": ("jobs.runs:command", "The scoring runs of a results folder."),
    "report": ("jobs.report:command", "Write the page of a scoring run again."),
    "maintain": ("jobs.maintain:command", "Join small files, remove leftovers of dead runs."),
    "models": ("jobs.models:command", "List bundles, choose the one in production, go back to the last."),
    "submit": ("cluster.commands:submit_command", "Run any of these as a job on a Ray cluster."),
    "jobs": ("cluster.commands:jobs_command", "List or stop the jobs of a Ray cluster."),
}


class LazyGroup(click.Group):
    """A group that names its subcommands by dotted path and imports one when it is used."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, context: click.Context, words: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(context, words)
        except NoSuchCommand:  # click itself suggests only imported commands
            raise NoSuchCommand(words[0], possibilities=COMMANDS, ctx=context) from None

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pneumonia")
def main() -> None:
    """Score chest X-rays for normal / bacterial / viral pneumonia, in batches, on Ray.

    Exit codes: 0 done; 1 failed, the same command resumes; 2 wrong usage or input; 3 committed, but with
    more rejects than allowed; 4 held back by a gate. Research use only: not a medical device.
    """


if __name__ == "__main__":
    main(prog_name="pneumonia")

"""The `pneumonia` command. Each job is imported when it is called, so that help is instant."""

import importlib

import click
from click.exceptions import NoSuchCommand

from pneumonia_core import __version__

COMMANDS = {
    "demo": "The whole loop on synthetic X-rays: train, evaluate, score.",
    "train": "Fine-tune a ResNet on labelled X-rays and write a bundle.",
    "evaluate": "Measure a bundle on a labelled set; JSON and one HTML page.",
    "score": "Score archives of X-rays into a Delta table.",
    "inspect": "What is in a data set or archive, what is broken, what gives the class away.",
    "latest": "One row for each image that is still in its archive.",
    "runs": "The scoring runs of a results folder.",
    "maintain": "Join small files, remove what dead runs left.",
    "submit": "Run any of these as a job on a Ray cluster.",
    "jobs": "List or stop the jobs of a Ray cluster.",
}


class LazyGroup(click.Group):
    """A group whose subcommands are `jobs.<name>:command`, imported when one is used."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command = importlib.import_module(f"jobs.{name}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, context: click.Context, words: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(context, words)
        except NoSuchCommand:  # click suggests of the commands that are imported
            raise NoSuchCommand(words[0], possibilities=COMMANDS, ctx=context) from None

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pneumonia")
def main() -> None:
    """Score chest X-rays for normal / bacterial / viral pneumonia, in batches, on Ray.

    Exit codes: 0 done; 1 failed, the same command resumes; 2 wrong usage or input; 3 committed, but with
    more rejects than allowed; 4 held back by a gate. Research use only: not a medical device.
    """


if __name__ == "__main__":
    main(prog_name="pneumonia")

"""Turns a job's command line into the cluster's: checked, `--config` merged, locations absolute."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click
from click.core import ParameterSource

from jobs.cli import main
from jobs.console.options import LocationType
from pneumonia_core.errors import InvalidInput

NOT_FOR_THE_JOB: Final = frozenset({"config", "print_config", "address"})
NOT_JOBS: Final = frozenset({"submit", "jobs"})


def read_command(words: Sequence[str]) -> click.Context:
    """The job's command with its options read, from the command line and from its --config file.

    Wrong usage ends here, before any request to the cluster. Raises InvalidInput for a word that is not a
    job, and click's UsageError, exactly as the command itself would.
    """
    group = click.Context(main, info_name="pneumonia")
    name = words[0] if words else ""
    command = None if name in NOT_JOBS else main.get_command(group, name)
    if command is None:
        jobs = ", ".join(j for j in main.list_commands(group) if j not in NOT_JOBS)
        raise InvalidInput(f"{name!r} is not a job. After `--` comes one of {jobs}, with its arguments.")
    context = command.make_context(name, list(words[1:]), parent=group)
    if context.get_parameter_source("address") in (ParameterSource.COMMANDLINE, ParameterSource.DEFAULT_MAP):
        raise InvalidInput(
            f"a submitted job runs on the cluster that it is submitted to: drop --address from {name}, and "
            "give it before the `--`."
        )
    return context


def job_arguments(context: click.Context, here: bool) -> list[str]:
    """The words of the job's command for the cluster, `--config` merged in.

    Where the cluster's head is this machine (`here`), relative locations become absolute. Otherwise they
    raise InvalidInput, because the cluster does not see this machine's files.
    """
    arguments: list[str] = []
    options: list[str] = []
    for parameter in context.command.params:
        name = parameter.name or ""
        value = context.params.get(name)
        if value is None or name in NOT_FOR_THE_JOB:
            continue
        absolute = _absolute(parameter, value, here)
        if absolute == value and context.get_parameter_source(name) is ParameterSource.DEFAULT:
            continue
        if isinstance(parameter, click.Option):
            options += _option_words(parameter, absolute)
        else:
            arguments += _texts(absolute)
    dashed = ["--"] if any(word.startswith("-") for word in arguments) else []
    return [str(context.info_name), *options, *dashed, *arguments]


def _absolute(parameter: click.Parameter, value: object, here: bool) -> object:
    # On the cluster a job starts in a temporary folder. A relative location would mean another place there,
    # and results written to it would be deleted with the folder.
    if not isinstance(parameter.type, LocationType):
        return value
    if isinstance(value, tuple):
        return tuple(_absolute(parameter, item, here) for item in value)
    text = str(value)
    if not parameter.type.is_relative(text):
        return value
    if not here:
        raise InvalidInput(
            f"{parameter.human_readable_name.lower()} {text} is a path on this machine, which the cluster "
            "does not see. Give the absolute path of a file system that every node mounts."
        )
    return os.path.abspath(Path(text).expanduser())  # noqa: PTH100 (resolve() would follow links)


def _option_words(option: click.Option, value: object) -> list[str]:
    name = max(option.opts, key=len)
    if option.is_flag:
        return [name] if value else [max(option.secondary_opts, key=len)] if option.secondary_opts else []
    if option.multiple:
        return [f"{name}={text}" for text in _texts(value)]
    return [name, *_texts(value)] if option.nargs > 1 else [f"{name}={value}"]


def _texts(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, tuple) else [str(value)]

"""Wrapper of every command: options from a TOML file, errors as one line, the result as one JSON line."""

import json
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click
from click.core import ParameterSource

from jobs.console.dates import UTC, today
from jobs.console.output import core_warnings_shown, native_stderr_aside, say
from jobs.console.remedies import error_line
from pneumonia_core.errors import InvalidInput, PneumoniaError
from pneumonia_core.system.import_path import leave_out_current_folder
from pneumonia_core.system.proxies import never_proxy_loopback

Result = dict[str, Any]
_TIMEZONE: Final = "timezone"


def job_command(
    name: str,
    *,
    context_settings: dict[str, Any] | None = None,
    short_help: str | None = None,
) -> Callable[[Callable[..., Result]], click.Command]:
    """Decorator: makes a click command of a function that returns the job's result.

    Adds `--config FILE` and `--print-config`. The command prints the result as one JSON object on stdout and
    ends with its `exit_code` (default 0). A PneumoniaError becomes one line on stderr.
    """

    def wrap(job: Callable[..., Result]) -> click.Command:
        def run(**options: object) -> None:
            context = click.get_current_context()
            if options.pop("print_config"):
                _print_config(context)
                return
            options.pop("config")
            never_proxy_loopback()
            leave_out_current_folder()
            with native_stderr_aside(), core_warnings_shown():
                result = _run_job(job, options)
            finish(result)

        run.__doc__ = job.__doc__
        run.__click_params__ = [  # type: ignore[attr-defined]
            *getattr(job, "__click_params__", []),
            click.Option(
                ["--print-config"],
                is_flag=True,
                help="Show every option with its value and where it came from, and stop.",
            ),
            click.Option(
                ["--config"],
                type=click.Path(dir_okay=False),
                is_eager=True,
                callback=_load_config,
                help="TOML file with options; the command line wins.",
            ),
        ]
        return click.command(name, _JobCommand, context_settings=context_settings, short_help=short_help)(run)

    return wrap


class _JobCommand(click.Command):
    """A command that knows the time zone of its command line when it reads a configuration."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given, _, _ = self.make_parser(ctx).parse_args(list(args))
        if isinstance(zone := given.get(_TIMEZONE), str):
            ctx.meta[_TIMEZONE] = zone
        return super().parse_args(ctx, args)


def _run_job(job: Callable[..., Result], options: dict[str, object]) -> Result:
    try:
        return job(**options)
    except PneumoniaError as error:
        line = error_line(error)
        say(f"error: {line}")
        return {"state": "failed", "exit_code": error.exit_code, "error": line}
    except KeyboardInterrupt:
        say("interrupted")
        return {"state": "failed", "exit_code": 1, "error": "interrupted"}


def finish(result: Result) -> None:
    """Print the result as the last line of stdout and exit with its exit code."""
    result.setdefault("exit_code", 0)
    sys.stderr.flush()
    print(json.dumps(result, default=str), flush=True)
    sys.exit(result["exit_code"])


def run_command(command: click.Command) -> None:
    """Run a job's command as `python -m jobs.<name>`."""
    command.main(prog_name=f"pneumonia {command.name}")


def _load_config(context: click.Context, parameter: click.Parameter, path: str | None) -> str | None:
    if path is None:
        return None
    try:
        text = Path(path).read_text(encoding="utf-8")
        values = _with_date(text, context.meta.get(_TIMEZONE))
    except OSError as error:
        raise click.UsageError(f"cannot read the configuration {path}: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{path} is not valid TOML: {error}.") from error
    except InvalidInput as error:
        raise click.UsageError(error.text) from error
    known = {p.name: p for p in context.command.params if p.name not in ("config", "print_config")}
    defaults = {}
    for key, value in values.items():
        option = key.replace("-", "_")
        if option not in known:
            raise click.UsageError(
                f"unknown key {key!r} in {path}. Keys of `pneumonia {context.command.name}`: "
                + ", ".join(sorted(str(k).replace("_", "-") for k in known))
                + "."
            )
        defaults[option] = _config_value(known[option], key, value, path)
    context.default_map = {**(context.default_map or {}), **defaults}
    return path


def _with_date(text: str, timezone: str | None) -> dict[str, Any]:
    """The values of a TOML text with `{date}` filled in, in the time zone given or else in its own."""
    values = tomllib.loads(text.replace("{date}", today()))
    zone = timezone or values.get(_TIMEZONE, UTC)
    return values if zone == UTC else tomllib.loads(text.replace("{date}", today(str(zone))))


def _config_value(parameter: click.Parameter, key: str, value: object, path: str) -> object:
    """The value as click takes it. Click would split one text into words where it takes several values."""
    takes_several = parameter.nargs == -1 or parameter.multiple
    if takes_several and isinstance(value, str):
        return [value]
    if isinstance(value, list | dict) and not takes_several:
        raise click.UsageError(f"{key} in {path} takes one value.")
    return value


def _print_config(context: click.Context) -> None:
    origins = {
        ParameterSource.COMMANDLINE: "command line",
        ParameterSource.ENVIRONMENT: "environment",
        ParameterSource.DEFAULT_MAP: str(context.params.get("config")),
    }
    for parameter in context.command.params:
        if parameter.name in (None, "config", "print_config"):
            continue
        value = context.params.get(parameter.name or "")
        source = origins.get(context.get_parameter_source(parameter.name or ""), "default")  # type: ignore[arg-type]
        shown = list(value) if isinstance(value, tuple) else value
        print(f"{str(parameter.name).replace('_', '-')} = {json.dumps(shown, default=str)}  # {source}")

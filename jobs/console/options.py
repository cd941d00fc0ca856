"""Types of option values, and the options that several commands share."""

from pathlib import Path
from typing import Final

import click

from jobs.console.dates import today
from pneumonia_core.errors import InvalidInput
from pneumonia_core.gates import parse_gates

_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class LocationType(click.ParamType[str]):
    """A path or URI that a job reads or writes.

    `words` are values that name something other than a file (`--weights none`). With `folder`, a file at that
    path is wrong usage. A submitted job gets its locations as absolute paths (`cluster.job_arguments`).
    """

    name = "location"

    def __init__(self, *words: str, folder: bool = False) -> None:
        self.words = frozenset(words)
        self.folder = folder

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        if self.folder and Path(text).is_file():
            self.fail(f"{text} is a file, not a folder.", param, ctx)
        return text

    def is_relative(self, text: str) -> bool:
        """Whether `text` names a place relative to the current folder."""
        # `file:/x` is a URI too, as Java writes it.
        is_uri = "://" in text or text.startswith("file:/")
        return text not in self.words and not is_uri and not Path(text).is_absolute()


class DurationType(click.ParamType[float]):
    """A duration such as 90, 45s, 30m, 6h or 7d, in seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return parse_duration_s(str(value))
        except InvalidInput as error:
            self.fail(error.text, param, ctx)


class GateType(click.ParamType[str]):
    """A gate such as gone=hold:0.2, as its text, checked."""

    name = "gate"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            parse_gates([str(value)])
        except InvalidInput as error:
            self.fail(error.text, param, ctx)
        return str(value)


def parse_duration_s(text: str) -> float:
    """Seconds of a duration such as `90`, `45s`, `30m`, `6h` or `7d`. Raises InvalidInput."""
    number, unit = (text[:-1], text[-1]) if text[-1:] in _UNITS_S else (text, "s")
    try:
        seconds = float(number) * _UNITS_S[unit]
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise InvalidInput(f"{text!r} is not a duration. Write 90, 45s, 30m, 6h or 7d.")
    return seconds


class TimezoneType(click.ParamType[str]):
    """A time zone of the IANA database, such as Europe/Berlin."""

    name = "zone"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            today(str(value))
        except InvalidInput as error:
            self.fail(error.text, param, ctx)
        return str(value)


address_option = click.option(
    "--address", help="Ray cluster. Default: RAY_ADDRESS, else Ray starts on this machine."
)
num_cpus_option = click.option(
    "--num-cpus", type=click.IntRange(min=1), help="CPUs of the Ray started on this machine."
)
allow_prefix_option = click.option(
    "--allow-prefix",
    type=LocationType(),
    multiple=True,
    metavar="PREFIX",
    help="A manifest's images may lie under this prefix too. May be given again.",
)
engine_option = click.option(
    "--engine",
    default="auto",
    show_default=True,
    help="auto, openvino, tensorflow, or what `export` added: openvino-int8, onnxruntime.",
)
precision_option = click.option(
    "--precision", type=click.Choice(["auto", "float32"]), default="auto", show_default=True
)

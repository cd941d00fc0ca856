"""Templates to text: one self-contained HTML file, or Markdown, with every foreign text escaped."""

import datetime
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2

from pneumonia_core.system.printable import printable

DISCLAIMER = "Research use only. Not a medical device."
_FOLDER = Path(__file__).parent / "templates"
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~])")


def render_html(template: str, **values: Any) -> str:  # noqa: ANN401 - a template's values
    """The page of an .html template of this folder, with the style sheet inside and HTML escaped."""
    style = (_FOLDER / "page.css").read_text(encoding="utf-8")
    return _environment(True).get_template(template).render(style=style, disclaimer=DISCLAIMER, **values)


def render_markdown(template: str, **values: Any) -> str:  # noqa: ANN401 - a template's values
    """The text of an .md template of this folder; foreign text in it goes through the filter `md`."""
    return _environment(False).get_template(template).render(disclaimer=DISCLAIMER, **values)


@lru_cache
def _environment(html: bool) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=html,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        shown=shown, md=_markdown_escaped, value=value, signed=signed, percent=percent, interval=interval,
        bracketed=bracketed, count=count, share=share, prose=_prose, megabytes=megabytes, duration=duration,
    )  # fmt: skip
    return environment


def shown(thing: object) -> str:
    """A value as `printable` text. HTML is escaped by the template."""
    return printable(_plain(thing))


def _plain(thing: object) -> str:
    if isinstance(thing, bool):
        return "yes" if thing else "no"
    if thing is None:
        return "–"
    if isinstance(thing, float):
        return f"{thing:.6g}"
    if isinstance(thing, int):
        return f"{thing:,}"
    if isinstance(thing, datetime.datetime):
        return thing.isoformat(sep=" ", timespec="seconds")
    if isinstance(thing, dict):
        return ", ".join(f"{key} {_plain(item)}" for key, item in thing.items())
    if isinstance(thing, list | tuple):
        return ", ".join(_plain(item) for item in thing)
    return str(thing)


def _markdown_escaped(thing: object) -> str:
    return _MARKDOWN.sub(r"\\\1", shown(thing))


def _prose(name: object) -> str:
    """A key as words: `images_per_s` is 'images per s'."""
    return shown(name).replace("_", " ")


def value(measure: dict[str, float | None], digits: int = 3) -> str:
    """The value of a measure: '0.977', or a dash where it is undefined."""
    return signed(measure["value"], digits)


def interval(measure: dict[str, float | None], digits: int = 3) -> str:
    """The interval of a measure: '0.969–0.985', or nothing where there is none."""
    low, high = measure["low"], measure["high"]
    if low is None or high is None:
        return ""
    dash = " to " if low < 0 else "–"
    return f"{signed(low, digits)}{dash}{signed(high, digits)}"


def bracketed(measure: dict[str, float | None], digits: int = 3) -> str:
    """The interval of a measure to stand behind its value: ' (0.969–0.985)', or nothing."""
    text = interval(measure, digits)
    return f" ({text})" if text else ""


def signed(number: float | None, digits: int = 3) -> str:
    """A number with a true minus sign, zero without; a dash where it is undefined."""
    if number is None:
        return "–"
    text = f"{number:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")


def percent(number: float, digits: int = 0) -> str:
    return f"{100 * number:.{digits}f} %"


def share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def count(number: int) -> str:
    return f"{number:,}"


def megabytes(size_bytes: float) -> str:
    """A size in the unit that suits it."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if size_bytes >= size:
            return f"{size_bytes / size:,.1f} {unit}"
    return f"{size_bytes / 1e3:,.0f} kB"


def duration(seconds: float) -> str:
    """'42.0 s', '3 min 20 s' or '2 h 05 min'."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"

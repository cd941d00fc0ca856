"""Output for a person while a job runs, on stderr: lines and one progress bar."""

import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Self

from pneumonia_core.system.printable import printable

PLAIN_INTERVAL_S = 10.0


def say(text: str) -> None:
    """Write one line to stderr, its line breaks and control characters escaped, over the progress bar.

    Any thread may call it; a signal handler must not: a write that interrupts another write to the same
    stream raises RuntimeError. A handler sets a flag, and the main loop reports it.
    """
    # Without a bar tqdm is not imported: that takes 0.1 s of the start.
    shown = sys.modules.get("tqdm")
    if shown is not None:
        shown.tqdm.write(printable(text), file=sys.stderr)
    else:
        sys.stderr.write(f"{printable(text)}\n")  # one write, so that lines of two threads do not mix
        sys.stderr.flush()


def show(lines: Iterable[str]) -> None:
    """Write lines for a person to stdout, their line breaks and control characters escaped."""
    print("\n".join(map(printable, lines)))


def aligned_columns(rows: Sequence[Sequence[str]], right: Container[int] = ()) -> list[str]:
    """One line per row, the cells of each column aligned: those of the columns in `right` on the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


@contextmanager
def native_stderr_aside() -> Iterator[None]:
    """Redirects what C++ libraries print to a file, so that the terminal shows only this project's lines.

    The file is kept, and its name printed, only where the block ends with an unexpected error.
    """
    if sys.__stderr__ is None or sys.stderr is not sys.__stderr__:
        yield
        return
    python_stderr = sys.stderr
    original = os.dup(2)
    terminal = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
    sys.stderr.flush()
    # The file has no name, so it disappears however the process ends.
    with tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), 2)
        sys.stderr = terminal
        try:
            yield
        except Exception:  # it propagates; here a person only gets the name of the file
            os.dup2(original, 2)
            print(f"what the libraries printed is in {_kept(aside)}", file=terminal)
            raise
        finally:
            terminal.flush()
            sys.stderr = python_stderr
            os.dup2(original, 2)
            os.close(original)
            terminal.close()


def _kept(aside: IO[bytes]) -> str:
    """Copy a file without a name to one with a name; that name."""
    aside.seek(0)
    with tempfile.NamedTemporaryFile(prefix="pneumonia-native-", suffix=".log", delete=False) as file:
        shutil.copyfileobj(aside, file)
    return file.name


class CoreWarnings(logging.Handler):
    """Shows the core's warnings as lines for a person."""

    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())


@contextmanager
def core_warnings_shown() -> Iterator[None]:
    """Shows the core's warnings as lines on stderr while a command runs."""
    logger, handler = logging.getLogger("pneumonia_core"), CoreWarnings(logging.WARNING)
    propagate = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


class Progress:
    """A bar on a terminal, one plain line every ten seconds elsewhere.

    The caller may raise `total` while the work is still being listed.
    """

    def __init__(self, total: int | None, unit: str, label: str) -> None:
        self.done = 0
        self.total = total
        self._unit = unit
        self._label = label
        self._facts: dict[str, object] = {}
        self._started = time.monotonic()
        self._last_line = self._started
        self._said = 0
        self._bar = None
        if sys.stderr.isatty():
            from tqdm import tqdm  # not needed without a terminal

            self._bar = tqdm(total=total, unit=f" {unit}", desc=label, dynamic_ncols=True, file=sys.stderr)

    def advance(self, count: int, **facts: object) -> None:
        """Count `count` more units as done and show `facts` behind the bar."""
        self.done += count
        self._facts.update(facts)
        if self._bar is not None:
            self._bar.total = self.total
            self._bar.set_postfix(self._facts, refresh=False)
            self._bar.update(count)
        elif time.monotonic() - self._last_line >= PLAIN_INTERVAL_S:
            self._write_line()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
        elif kind is None and self.done > self._said:
            self._write_line()

    def _write_line(self) -> None:
        self._last_line = time.monotonic()
        self._said = self.done
        say(self._plain_line())

    def _plain_line(self) -> str:
        seconds = max(time.monotonic() - self._started, 1e-9)
        of_total = f" of {self.total:,}" if self.total else ""
        facts = "".join(f", {name} {value}" for name, value in self._facts.items())
        return f"{self._label}: {self.done:,}{of_total} {self._unit}, {self.done / seconds:.1f}/s{facts}"

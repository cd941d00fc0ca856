"""Lines on a terminal while a progress bar is shown there."""

import os
import pty
import subprocess
import sys
import termios

from support.paths import REPOSITORY

CODE = """
from jobs.console.output import Progress, say
with Progress(10, "images", "scoring") as progress:
    progress.advance(5)
    say("first line")
    say("second\\nline")
    progress.advance(5)
say("at the end")
"""


def on_a_terminal(code: str) -> str:
    """The output of a process on its own terminal."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        written = b""
        try:
            while block := os.read(ours, 4096):
                written += block
        except OSError:  # Linux: the other end is closed
            pass
        assert process.wait(30) == 0
    os.close(ours)
    return written.decode()


def test_line_is_not_written_behind_the_bar():
    shown = on_a_terminal(CODE)
    stretches = shown.replace("\r", "\n").split("\n")
    for line in ("first line", "second\\nline", "at the end"):
        assert line in stretches
    # The bar is redrawn under the lines.
    assert "10/10" in shown.partition("second\\nline")[2]

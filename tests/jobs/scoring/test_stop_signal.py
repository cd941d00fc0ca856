"""SIGTERM sets a flag, whatever it interrupts; others report it and end the run."""

import subprocess
import sys

from support.paths import REPOSITORY

# A process of its own: the exports of this session's bundles leave a library that crashes on SIGTERM.
PROGRAM = """
import contextlib, os, signal, sys
from jobs.console.output import say
from jobs.scoring.context import ExecutionOptions, ScoringContext, stopping_on_sigterm

class Interrupted:
    lines, writing = [], False

    def write(self, text):
        assert not self.writing, "a handler wrote"
        self.writing = True
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        self.lines.append(text)
        self.writing = False

    def flush(self): pass

context = ScoringContext(None, None, ExecutionOptions(), None, contextlib.ExitStack())
with stopping_on_sigterm(context):
    sys.stderr = Interrupted()
    say("a line")
    sys.stderr = sys.__stderr__
    assert context.stop_requested
    assert 0 < signal.alarm(0) <= 20
print(*Interrupted.lines)
"""


def test_handler_writes_nothing_and_needs_neither_results_nor_bundle():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "a line\n\n"), done.stderr

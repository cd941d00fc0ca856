"""Named points at which a test lets a run die, fail or wait.

Outside tests the variable is not set and nothing happens.

PNEUMONIA_FAILPOINTS is a list of rules, separated by `;`, each `NAME[@SUBJECT]=ACTION[,once:FILE]`:

- a rule applies at the point NAME, with SUBJECT only where the point's subject contains that text;
- with `once` it applies only in the first process that creates FILE;
- ACTION is `kill` (SIGKILL, as from outside), `abort` (SIGABRT, as a crash), `enospc` (the disk is full),
  `broken` (the connection breaks), `sleep:SECONDS`, `log:FILE` (append the subject to FILE) or
  `reject:REASON` (the image has this reject reason).

`@FILE` instead of a list reads the list from FILE each time: the workers of a running cluster then follow its
changes.
"""

import errno
import os
import signal
import time
from pathlib import Path
from typing import Final

from pneumonia_core.errors import RejectedImage

VARIABLE: Final = "PNEUMONIA_FAILPOINTS"


def failpoint(name: str, subject: str = "") -> None:
    """Carry out the rules for this point, if there are any."""
    rules = os.environ.get(VARIABLE)
    if not rules:
        return
    if rules.startswith("@"):
        rules = Path(rules[1:]).read_text()
    for rule in filter(None, rules.split(";")):
        point, _, action = rule.partition("=")
        wanted, _, part = point.partition("@")
        if wanted == name and part in subject:
            _act(action, name, subject)


def _act(action: str, name: str, subject: str) -> None:
    action, _, once = action.partition(",once:")
    if once and not _is_first(once):
        return
    kind, _, value = action.partition(":")
    match kind:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "abort":
            os.abort()
        case "enospc":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        case "broken":
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        case "sleep":
            time.sleep(float(value))
        case "reject":
            raise RejectedImage(value, "planted by a test")
        case "log":
            # One write, which is atomic under O_APPEND.
            with Path(value).open("a") as file:
                file.write(subject.replace("\n", "\\n") + "\n")
        case _:
            raise ValueError(f"failpoint {name}: unknown action {action!r}")


def _is_first(file: str) -> bool:
    """Whether this process is the first to create the file."""
    try:
        os.close(os.open(file, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True

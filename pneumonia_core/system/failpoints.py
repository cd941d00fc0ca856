"""Named places where a test makes a run die, fail or wait. Outside tests the variable is unset and nothing happens.

PNEUMONIA_FAILPOINTS is a list, separated by `;`, of `NAME[@SUBJECT]=ACTION[,once:FILE]`. ACTION is `kill` (SIGKILL to
this process), `enospc` (the disk is full), `sleep:SECONDS`,
`log:FILE` (append the subject to it) or `reject:REASON` (the image has this reject reason). With SUBJECT the rule holds only where the subject
contains that text, with `once` only for the first process that creates FILE. `@FILE` instead of a list reads it from there
each time, so that what a living cluster's workers do can be changed.
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
    """Act on the rules for this place, if there are any."""
    rules = os.environ.get(VARIABLE)
    if not rules:
        return
    if rules.startswith("@"):
        rules = Path(rules[1:]).read_text()
    for rule in filter(None, rules.split(";")):
        place, _, action = rule.partition("=")
        wanted, _, part = place.partition("@")
        if wanted == name and part in subject:
            _act(action, name, subject)


def _act(action: str, name: str, subject: str) -> None:
    action, _, once = action.partition(",once:")
    if once and not _first(once):
        return
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "enospc":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    elif action.startswith("sleep:"):
        time.sleep(float(action.removeprefix("sleep:")))
    elif action.startswith("reject:"):
        raise RejectedImage(action.removeprefix("reject:"), "planted by a test")
    elif action.startswith("log:"):
        line = subject.replace("\n", "\\n") + "\n"
        with open(action.removeprefix("log:"), "a") as file:  # noqa: PTH123 - one write, atomic under O_APPEND
            file.write(line)
    else:
        raise ValueError(f"failpoint {name}: unknown action {action!r}")


def _first(file: str) -> bool:
    try:
        os.close(os.open(file, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True

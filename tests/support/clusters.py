"""The session's Ray as a cluster that commands are sent to: starting one for each takes longer than most
runs.

Its node declares a GPU that is not there. Actors hold shares of it, and their engine, OpenVINO, computes on
CPUs.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

# In the environment of a process that starts Ray: its node declares a GPU.
DECLARED_GPU: Final = {"RAY_OVERRIDE_RESOURCES": '{"GPU": 1}'}
# Images of such a name cannot be read, whatever is in them.
_ALWAYS: Final = "decode@unreadable-=reject:unreadable"


@dataclass(frozen=True)
class Rules:
    """The file that says which failpoints the workers of a living cluster act on; those of a driver are in
    its own environment.
    """

    file: Path

    @property
    def variable(self) -> str:
        """What PNEUMONIA_FAILPOINTS holds where the cluster is started."""
        return f"@{self.file}"

    def set(self, *rules: str) -> None:
        self.file.write_text(";".join([_ALWAYS, *rules]))


@dataclass(frozen=True)
class SharedCluster:
    address: str
    rules: Rules

    @property
    def options(self) -> tuple[str, str]:
        return "--address", self.address

    def workers_do(self, *rules: str) -> None:
        self.rules.set(*rules)

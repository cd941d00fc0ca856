"""The options of `pneumonia score`. Imports nothing heavy: the command reads them before it imports its room."""

from dataclasses import dataclass
from typing import Final

CHUNK_SIZE: Final = 256


@dataclass(frozen=True)
class ScoreOptions:
    """How an archive is scored: the command's options, as typed.

    `carry` is a list of columns, `a,b`; `actors` a number, or the least and the most, `2,8`. `deadline` is in
    seconds. `chunk_size` is in images.
    """

    archive: tuple[str, ...]
    model: str
    engine: str = "auto"
    precision: str = "auto"
    date: str | None = None
    retry_rejected: bool = False
    rescore: str | None = None
    limit: int | None = None
    deadline: float | None = None
    fresh: bool = False
    max_reject_rate: float = 1.0
    chunk_size: int = CHUNK_SIZE
    carry: str | None = None
    allow_prefix: tuple[str, ...] = ()
    shape: str = "auto"
    actors: str | None = None
    actor_cpus: float | None = None
    decode_cpus: float | None = None
    address: str | None = None
    num_cpus: int | None = None

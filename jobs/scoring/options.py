"""The options of `pneumonia score`. Nothing heavy is imported here, because the command line imports it."""

from dataclasses import dataclass
from typing import Final

from jobs.console.dates import UTC

CHUNK_SIZE: Final = 256


@dataclass(frozen=True)
class ScoreOptions:
    """The options of a scoring command.

    `carry` lists columns, `a,b`. `gate` holds texts such as `gone=hold:0.2`. `actors` is one number, or the
    least and the most: `2,8`. `deadline` is in seconds, `chunk_size`
    and `batch_size` in images.
    """

    archive: tuple[str, ...]
    model: str
    engine: str = "auto"
    precision: str = "auto"
    date: str | None = None
    timezone: str = UTC
    retry_rejected: bool = False
    rescore: str | None = None
    limit: int | None = None
    deadline: float | None = None
    fresh: bool = False
    max_reject_rate: float = 1.0
    gate: tuple[str, ...] = ()
    chunk_size: int = CHUNK_SIZE
    batch_size: int | None = None
    cache: str | None = None
    trust_chest: bool = False
    carry: str | None = None
    allow_prefix: tuple[str, ...] = ()
    shape: str = "auto"
    actors: str | None = None
    actor_cpus: float | None = None
    actor_gpus: float | None = None
    decode_cpus: float | None = None
    address: str | None = None
    num_cpus: int | None = None

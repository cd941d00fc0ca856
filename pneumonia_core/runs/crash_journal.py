"""Crash journal of a chunk: the batch or image a worker was on when it died."""

import json
from collections.abc import Sequence
from typing import Final, Literal

from pneumonia_core.errors import PneumoniaError, Remedy
from pneumonia_core.storage.files import delete_file, exists, read_bytes, write_bytes
from pneumonia_core.storage.location import Location

MAX_ATTEMPTS: Final = 20
Unit = Literal["batch", "image"]


class CrashJournal:
    """The attempts at one chunk in one stage of the pipeline, each with a file that names what it is on.

    The first attempt writes an empty file. A retry records each batch before the batch enters the engine. The
    next retry splits the batch that was recorded last, and records each of its images. An image that was
    recorded last is poison: a worker died while it had that image alone.
    """

    def __init__(self, run_folder: Location, stage: str, chunk: int) -> None:
        # The folder's name is that of unfinished runs of earlier versions.
        self._folder = run_folder.child("begun")
        self._stem = f"{chunk:08d}-{stage}"
        self._last_units: list[tuple[str, int]] = []
        self._current: list[tuple[Unit, int]] = []
        self.attempts = 0
        while exists(self._file(self.attempts)):
            self._last_units.extend(_last_unit(self._file(self.attempts)))
            self.attempts += 1
        if self.attempts >= MAX_ATTEMPTS:
            # The next command may have better machines: it gets as many attempts.
            self._delete()
            raise PneumoniaError(
                f"Chunk {chunk} crashed {self.attempts} workers and no single image causes it: the workers "
                "are probably out of memory. Nothing was committed.",
                Remedy.FEWER_ACTORS,
            )
        self._write()

    @property
    def is_retry(self) -> bool:
        """Whether a worker died on this chunk before."""
        return self.attempts > 0

    @property
    def poison(self) -> frozenset[int]:
        """Positions in the chunk of the images that each killed a worker alone."""
        return frozenset(position for unit, position in self._last_units if unit == "image")

    def killed_in(self, positions: Sequence[int]) -> bool:
        """Whether a worker died on the batch of these positions."""
        return any(position in positions for _, position in self._last_units)

    def record(self, unit: Unit, position: int) -> None:
        """Record what is tried next: this image, or the batch that begins with it.

        The first attempt records nothing.
        """
        if self.is_retry:
            self._current = [(unit, position)]
            self._write()

    def finish(self) -> None:
        """The chunk's part is written: delete the journal."""
        self._delete()

    def _delete(self) -> None:
        for attempt in range(self.attempts + 1):
            delete_file(self._file(attempt))

    def _file(self, attempt: int) -> Location:
        return self._folder.child(f"{self._stem}.{attempt:04d}.json")

    def _write(self) -> None:
        # The file must survive this process, not a power failure: no fsync.
        write_bytes(self._file(self.attempts), json.dumps(self._current).encode(), durable=False)


def _last_unit(file: Location) -> list[tuple[str, int]]:
    try:
        records = json.loads(read_bytes(file))
    except ValueError:
        # After a power failure the file may exist without its content.
        return []
    return [(str(unit), int(position)) for unit, position in records]

"""What a worker leaves behind while it is at a chunk, so that the next one knows what killed it."""

import json
from typing import Final

from pneumonia_core.errors import PneumoniaError
from pneumonia_core.storage.files import delete_file, exists, read_bytes, write_bytes
from pneumonia_core.storage.location import Location

MAX_BEGINNINGS: Final = 20
BATCH: Final = "batch"
IMAGE: Final = "image"


class CrashJournal:
    """The beginnings of one chunk in one stage of the pipeline.

    The first worker only leaves a mark that it begins. One that finds an earlier mark records each batch
    before it enters the engine; the one after it takes the batch that was last recorded apart and records
    each of its images; and an image on which such a worker died is to blame.
    """

    def __init__(self, run_folder: Location, stage: str, chunk: int) -> None:
        self._folder = run_folder.child("begun")
        self._stem = f"{chunk:08d}-{stage}"
        self._last: list[tuple[str, int]] = []
        self._records: list[tuple[str, int]] = []
        self.beginnings = 0
        while exists(self._mark(self.beginnings)):
            self._last.extend(_last_record(self._mark(self.beginnings)))
            self.beginnings += 1
        if self.beginnings >= MAX_BEGINNINGS:
            # The next command may have better machines, and as many beginnings.
            self._forget()
            raise PneumoniaError(
                f"workers died {self.beginnings} times on chunk {chunk}, and no image of it is to blame: the machines "
                "may be short of memory. Nothing was committed; run the same command again, with fewer --actors."
            )
        self._write()

    @property
    def careful(self) -> bool:
        """Whether an earlier worker died on this chunk."""
        return self.beginnings > 0

    @property
    def blamed(self) -> set[int]:
        """Positions in the chunk of the images on which a worker died while it had that one alone."""
        return {position for kind, position in self._last if kind == IMAGE}

    def suspects(self, positions: list[int]) -> bool:
        """Whether a worker died on the batch of these positions."""
        return any(position in positions for _, position in self._last)

    def record(self, kind: str, position: int) -> None:
        """Say what is tried next: the batch that begins with this image, or this image alone."""
        if self.careful:
            self._records = [(kind, position)]
            self._write()

    def finish(self) -> None:
        """The chunk's part is written: its marks can go."""
        self._forget()

    def _forget(self) -> None:
        for number in range(self.beginnings + 1):
            delete_file(self._mark(number))

    def _mark(self, number: int) -> Location:
        return self._folder.child(f"{self._stem}.{number:04d}.json")

    def _write(self) -> None:
        # It must outlive this process, not the machine's power: no fsync.
        write_bytes(self._mark(self.beginnings), json.dumps(self._records).encode(), durable=False)


def _last_record(place: Location) -> list[tuple[str, int]]:
    try:
        records = json.loads(read_bytes(place))
    except ValueError:
        # Of a machine that lost its power the file may be there without its content.
        return []
    return [(str(kind), int(position)) for kind, position in records]

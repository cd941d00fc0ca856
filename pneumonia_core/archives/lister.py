"""Listing in the background: the images of all archives, in segments on this machine's disk."""

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import pyarrow as pa
import pyarrow.parquet as pq

from pneumonia_core.archives.archive import list_archive
from pneumonia_core.archives.entries import SOURCE_FIELDS, ListedImage, source_values
from pneumonia_core.archives.manifests import ListingRules, is_manifest
from pneumonia_core.archives.skipped import SkipReason
from pneumonia_core.errors import PneumoniaError, Remedy
from pneumonia_core.storage.errors import error_text
from pneumonia_core.storage.patience import heed
from pneumonia_core.system.hash_set import HashSet
from pneumonia_core.system.scratch import ScratchFolder

SEGMENT_ROWS: Final = 65_536
LEAVE_AFTER_S: Final = 3.0
_NO_RULES: Final = ListingRules()
LISTED_SCHEMA: Final = pa.schema(
    [
        pa.field("position", pa.int64()),
        pa.field("image_uri", pa.string()),
        pa.field("image_version", pa.string()),
        pa.field("size_bytes", pa.int64()),
        pa.field("archive", pa.string()),
        *SOURCE_FIELDS,
        pa.field("carried", pa.string()),
    ]
)
# The values of a row of LISTED_SCHEMA but its position.
_Row = tuple[str | int | None, ...]


class Lister:
    """Lists archives in a thread, into Parquet segments on this machine's disk, so that memory stays flat.

    `listed` counts the images so far; `empty` are the archives that are listed to their end and have no
    image. A storage that does not answer is waited for `leave_after_s` at the end.
    """

    def __init__(
        self,
        archives: Sequence[str],
        rules: ListingRules = _NO_RULES,
        leave_after_s: float = LEAVE_AFTER_S,
    ) -> None:
        self._rules = rules
        self._leave_after_s = leave_after_s
        self._skipped: Counter[SkipReason] = Counter()
        self.listed = 0
        self.empty: list[str] = []
        self._archives = archives
        self._segments: list[Path] = []
        self._taken = 0
        self._error: BaseException | None = None
        self._stopping = threading.Event()
        self._finished = threading.Event()
        self._folder = ScratchFolder("listing")
        self._thread = threading.Thread(target=self._run, name="lister", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        # The thread stops at the next image, or when the request that it waits for fails once more.
        self._thread.join(self._leave_after_s)
        self._folder.close()

    @property
    def done(self) -> bool:
        """Whether the listing has ended, by itself or by an error."""
        return self._finished.is_set()

    @property
    def skip_counts(self) -> dict[str, int]:
        """Numbers of what is skipped so far, by the codes of SkipReason."""
        return {reason.value: number for reason, number in self._skipped.items()}

    def wait(self, timeout_s: float) -> bool:
        """Wait until the listing is done, at most for `timeout_s`. Returns whether it is."""
        return self._finished.wait(timeout_s)

    def take(self) -> list[Path]:
        """The segments finished since the last call. Raises what the listing raised.

        While the listing goes on, its newest segment is kept back for the next call.
        """
        finished = self.done
        if self._error is not None:
            raise self._error
        until = len(self._segments) if finished else max(len(self._segments) - 1, self._taken)
        taken = self._segments[self._taken : until]
        self._taken = until
        return taken

    def _run(self) -> None:
        heed(self._stopping)
        try:
            self._list()
        except BaseException as error:  # noqa: BLE001 - handed to the thread that takes the segments
            self._error = error
        finally:
            self._finished.set()

    def _list(self) -> None:
        rows: list[_Row] = []
        for archive, image in self._images():
            values = (image.uri, image.version, image.size_bytes, archive)
            rows.append((*values, *source_values(image.source), image.carried))
            if len(rows) == SEGMENT_ROWS:
                self._write(rows)
                rows = []
            if self._stopping.is_set():
                return
        if rows:
            self._write(rows)

    def _images(self) -> Iterator[tuple[str, ListedImage]]:
        """Each image with its archive, once."""
        # A manifest may name an image of another archive or manifest.
        seen = HashSet() if len(self._archives) > 1 and any(map(is_manifest, self._archives)) else None
        for archive in self._archives:
            is_empty = True
            for image in list_archive(archive, self._skipped, self._rules):
                is_empty = False
                if seen is None or seen.add(image.uri):
                    yield archive, image
                else:
                    self._skipped[SkipReason.IN_EARLIER_ARCHIVE] += 1
            if is_empty:
                self.empty.append(archive)

    def _write(self, rows: list[_Row]) -> None:
        path = self._folder.path / f"{len(self._segments):06d}.parquet"
        positions = range(self.listed, self.listed + len(rows))
        columns = [
            pa.array(values, field.type)
            for values, field in zip((positions, *zip(*rows, strict=True)), LISTED_SCHEMA, strict=True)
        ]
        try:
            pq.write_table(pa.table(columns, schema=LISTED_SCHEMA), path, compression="zstd")
        except OSError as error:
            raise PneumoniaError(
                f"the listing cannot be written to {path.parent} ({error_text(error)}).",
                Remedy.OTHER_SCRATCH,
            ) from error
        self.listed += len(rows)
        self._segments.append(path)

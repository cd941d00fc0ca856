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
from pneumonia_core.archives.position import ListingPosition, Rest, containing_file
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

    It begins after the place `after`, where there is one, and lists what comes before that place at last.
    `listed` counts the images so far; `empty` are the archives that have no image, once all are listed.
    `segments_until_end` are those up to the end of the last archive, once it is reached. A storage that does
    not answer is waited for `leave_after_s` at the end.
    """

    def __init__(
        self,
        archives: Sequence[str],
        rules: ListingRules = _NO_RULES,
        leave_after_s: float = LEAVE_AFTER_S,
        after: ListingPosition | None = None,
    ) -> None:
        self._rules = rules
        self._leave_after_s = leave_after_s
        self._skipped: Counter[SkipReason] = Counter()
        self.listed = 0
        self.empty: list[str] = []
        self._archives = archives
        self._after = after if after is not None and after.archive in archives else None
        self._rows: list[_Row] = []
        # Held while `_rows` and `_segments` change.
        self._lock = threading.Lock()
        self._segments: list[Path] = []
        self._taken = 0
        self.segments_until_end: int | None = None
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
        # A copy, because the thread goes on counting.
        return {reason.value: number for reason, number in dict(self._skipped).items()}

    def wait(self, timeout_s: float) -> bool:
        """Wait until the listing is done, at most for `timeout_s`. Returns whether it is."""
        return self._finished.wait(timeout_s)

    def take(self) -> list[Path]:
        """What was listed since the last call, however little. Raises what the listing raised."""
        if self._error is not None:
            raise self._error
        with self._lock:
            self._write_rows()
            taken = self._segments[self._taken :]
            self._taken = len(self._segments)
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
        for archive, image in self._images():
            values = (image.uri, image.version, image.size_bytes, archive)
            row = (*values, *source_values(image.source), image.carried)
            with self._lock:
                self._rows.append(row)
                if len(self._rows) == SEGMENT_ROWS:
                    self._write_rows()
            if self._stopping.is_set():
                return
        with self._lock:
            self._write_rows()

    def _images(self) -> Iterator[tuple[str, ListedImage]]:
        """Each image with its archive, once."""
        # A manifest may name an image of another archive or manifest.
        seen = HashSet() if len(self._archives) > 1 and any(map(is_manifest, self._archives)) else None
        empty = dict.fromkeys(self._archives)
        for archive, images in self._stretches():
            for image in images:
                empty.pop(archive, None)
                if seen is None or seen.add(image.uri):
                    yield archive, image
                else:
                    self._skipped[SkipReason.IN_EARLIER_ARCHIVE] += 1
        self.empty = list(empty)

    def _stretches(self) -> Iterator[tuple[str, Iterator[ListedImage]]]:
        """Each archive with its images, the one in which the listing begins first, and again at last."""
        begin = self._after
        if begin is None:
            yield from ((archive, self._images_of(archive)) for archive in self._archives)
            self._mark_end()
            return
        number = self._archives.index(begin.archive)
        beside = HashSet()
        yield begin.archive, _noting(beside, begin, self._images_of(begin.archive, begin.image))
        yield from ((archive, self._images_of(archive)) for archive in self._archives[number + 1 :])
        self._mark_end()
        yield from ((archive, self._images_of(archive)) for archive in self._archives[:number])
        yield begin.archive, _up_to(begin, beside, self._images_of(begin.archive))

    def _images_of(self, archive: str, after: str | None = None) -> Iterator[ListedImage]:
        return list_archive(archive, self._skipped, self._rules, after)

    def _mark_end(self) -> None:
        """Note that all that comes up to the end of the last archive has been listed."""
        with self._lock:
            self._write_rows()
            self.segments_until_end = len(self._segments)

    def _write_rows(self) -> None:
        """Write the rows that no segment has yet as one. The lock is held."""
        if self._rows:
            self._write(self._rows)
            self._rows = []

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


def _noting(beside: HashSet, begin: ListingPosition, images: Iterator[ListedImage]) -> Iterator[ListedImage]:
    """The images. Those in the manifest, tar or zip of the place where the listing began are noted."""
    for image in images:
        if _is_beside(image, begin):
            beside.add(image.uri)
        yield image


def _up_to(begin: ListingPosition, beside: HashSet, images: Iterator[ListedImage]) -> Iterator[ListedImage]:
    """The images up to the place where the listing began, without those `beside` it that it has listed."""
    rest = Rest(begin.image)
    for image in images:
        if not is_manifest(begin.archive) and rest.holds_file_of(image.uri):
            return
        if not _is_beside(image, begin) or beside.add(image.uri):
            yield image
        if image.uri == begin.image:
            return


def _is_beside(image: ListedImage, begin: ListingPosition) -> bool:
    """Whether an image is in the manifest, tar or zip of the place where the listing began."""
    return is_manifest(begin.archive) or containing_file(image.uri) == containing_file(begin.image)

"""A cache of decoded squares: what a new model scores again is read from it, instead of from the archive.

    PLACE/squares-224px-…/packs/RUN/CHUNK      the squares that a run has decoded, a file for each chunk
    PLACE/squares-224px-…/entries/RUN/CHUNK    which images these are, until the run ends
    PLACE/squares-224px-…/index/RUN            all of its entries, once it has ended

An image is known by its URI and version, as in the results table. No run writes files of another, and what
cannot be read or written costs a square, never a row.
"""

import functools
import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from threading import Lock
from typing import Final

import numpy as np
from PIL import features

from pneumonia_core.archives.entries import ImageRef
from pneumonia_core.archives.manifests import ABSENT_VERSION
from pneumonia_core.errors import PneumoniaError, RejectedImage
from pneumonia_core.imaging.contract import PREPARATION, Decoded
from pneumonia_core.scoring.square_packs import (
    ENTRY,
    CachedSquare,
    Range,
    entries_in,
    key_of,
    packed,
    ranges,
    seal,
    squares_in,
)
from pneumonia_core.storage.files import delete_folder, list_names, read_bytes, write_bytes
from pneumonia_core.storage.location import Location
from pneumonia_core.storage.ranges import read_range

# A process holds the entries in memory, 20 bytes an image. Squares of older runs are not found.
MAX_ENTRIES: Final = 2_000_000
_READERS: Final = 16
# What changes the pixels of a square besides this program.
_DECODERS: Final = ("pillow", "pydicom", "pylibjpeg-openjpeg", "pylibjpeg-rle", "python-gdcm")
# What a storage may raise, and what a file that is damaged does.
_FAILURES: Final = (OSError, PneumoniaError, ValueError)


def squares_folder(place: Location, image_size: int, trust_chest: bool) -> Location:
    """The part of a cache whose squares are those that decoding gives with these options and libraries."""
    decoders = [features.version("jpg"), *(version(name) for name in _DECODERS)]
    facts = repr((PREPARATION, decoders, trust_chest))
    return place.child(f"squares-{image_size}px-{hashlib.sha256(facts.encode()).hexdigest()[:16]}")


class SquareCache:
    """The squares in a folder, read and added to by a run; any thread may use it.

    It raises nothing: after a failure of the storage this process leaves it alone.
    """

    def __init__(self, folder: Location, run_id: str) -> None:
        self._folder = folder
        self._run_id = run_id
        self._lock = Lock()
        self._index: _Index | None = None
        self._failed = False

    def find(self, refs: Sequence[ImageRef]) -> dict[int, CachedSquare]:
        """The squares that are there, by the places of their images in `refs`."""
        if self._failed:
            return {}
        try:
            return self._find(refs)
        except _FAILURES:
            self._failed = True
            return {}

    def add(self, chunk: int, images: Sequence[tuple[ImageRef, Decoded]]) -> None:
        """Add the squares of a chunk's images; images without a square or a version are left out."""
        some = [(ref, image) for ref, image in images if image.encoded is not None and _has_version(ref)]
        if self._failed or not some:
            return
        pack, entries = packed(chunk, some)
        try:
            write_bytes(_file(self._folder, "packs", self._run_id, chunk), pack, durable=False)
            listed = _file(self._folder, "entries", self._run_id, chunk)
            write_bytes(listed, seal(entries.tobytes()), durable=False)
        except _FAILURES:
            self._failed = True

    def _find(self, refs: Sequence[ImageRef]) -> dict[int, CachedSquare]:
        with self._lock:
            self._index = self._index or _read_index(self._folder)
        places = [place for place, ref in enumerate(refs) if _has_version(ref)]
        keys = np.array([key_of(refs[place].uri, refs[place].version or "") for place in places], np.uint64)
        wanted: dict[Location, list[tuple[int, np.void]]] = defaultdict(list)
        for number, run_id, entry in self._index.entries_of(keys):
            wanted[_file(self._folder, "packs", run_id, int(entry["chunk"]))].append((places[number], entry))
        stretches = [(pack, stretch) for pack, squares in wanted.items() for stretch in ranges(squares)]
        if not stretches:
            return {}
        with ThreadPoolExecutor(min(_READERS, len(stretches)), thread_name_prefix="squares") as readers:
            read = list(readers.map(lambda each: _read_squares(*each), stretches))
        return {place: square for squares in read for place, square in squares if square.is_of(refs[place])}


@functools.lru_cache(maxsize=1)
def open_squares(folder: Location, run_id: str) -> SquareCache:
    """The cache of this process for a run: its index is read once."""
    return SquareCache(folder, run_id)


def with_cached_squares(
    refs: Sequence[ImageRef],
    image_size: int,
    chunk: int,
    cache: SquareCache | None,
    decode: Callable[[Sequence[ImageRef]], Iterable[Decoded]],
) -> Iterator[Decoded]:
    """The decoded images of a chunk, in order: from the cache, else as `decode` gives them.

    Squares that the cache lacks are added to it after the last image.
    """
    if cache is None:
        yield from decode(refs)
        return
    found = cache.find(refs)
    missing = iter(decode([ref for place, ref in enumerate(refs) if place not in found]))
    fresh: list[tuple[ImageRef, Decoded]] = []
    for place, ref in enumerate(refs):
        if (square := found.pop(place, None)) is not None:
            yield square.decoded(image_size)
            continue
        image = next(missing)
        if image.encoded is not None:
            # Without its pixels: those of a whole chunk are never held.
            fresh.append((ref, Decoded(None, image.source, encoded=image.encoded)))
        yield image
    cache.add(chunk, fresh)


def index_run(folder: Location, run_id: str) -> None:
    """Let later runs find the squares that a run has added. Raises OSError or PneumoniaError."""
    of_chunks = folder.child("entries").child(run_id)
    names = list_names(of_chunks)
    if not names:
        return

    def read(name: str) -> np.ndarray:
        return _read_entries(of_chunks.child(name))

    with ThreadPoolExecutor(_READERS, thread_name_prefix="index") as readers:
        whole = np.concatenate(list(readers.map(read, names)))
    write_bytes(folder.child("index").child(run_id), seal(whole.tobytes()))
    delete_folder(of_chunks)


class _Index:
    """The entries ENTRY [N] of several runs: `runs` int [N] are the places of theirs in `names`."""

    def __init__(self, names: Sequence[str], entries: np.ndarray, runs: np.ndarray) -> None:
        # Of two entries of one key, the first is that of the newer run.
        order = np.argsort(entries["key"], kind="stable")
        self._names, self._entries, self._runs = names, entries[order], runs[order]
        self._keys = np.ascontiguousarray(self._entries["key"])

    def entries_of(self, keys: np.ndarray) -> Iterator[tuple[int, str, np.void]]:
        """For each key that is here: its number, the run whose pack has the square, and its entry."""
        for number, at in enumerate(np.searchsorted(self._keys, keys)):
            if at < len(self._keys) and self._keys[at] == keys[number]:
                yield number, self._names[self._runs[at]], self._entries[at]


def _read_index(folder: Location) -> _Index:
    """The entries of all runs, the newest first, up to MAX_ENTRIES."""
    names, entries, room = [], [np.zeros(0, ENTRY)], MAX_ENTRIES
    for name in list_names(folder.child("index"))[::-1]:
        if room <= 0:
            break
        names.append(name)
        entries.append(_read_entries(folder.child("index").child(name))[:room])
        room -= len(entries[-1])
    runs = np.repeat(np.arange(len(names)), [len(each) for each in entries[1:]])
    return _Index(names, np.concatenate(entries), runs)


def _read_entries(location: Location) -> np.ndarray:
    """The entries in a file; none where it is damaged, or somebody has deleted it."""
    try:
        return entries_in(read_bytes(location))
    except (FileNotFoundError, ValueError):
        return np.zeros(0, ENTRY)


def _read_squares(pack: Location, stretch: Range) -> list[tuple[int, CachedSquare]]:
    """The squares in a stretch of a pack; none where it is not there any more."""
    try:
        content = read_range(pack.uri, stretch.offset, stretch.length)
    except RejectedImage:
        return []
    return list(squares_in(stretch, content))


def _file(folder: Location, kind: str, run_id: str, chunk: int) -> Location:
    return folder.child(kind).child(run_id).child(f"{chunk:08d}")


def _has_version(ref: ImageRef) -> bool:
    """Whether the version says which content the image has."""
    return ref.version is not None and ref.version != ABSENT_VERSION

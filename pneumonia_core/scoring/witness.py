"""Is it the image or its storage? Images that cannot be read are rejected only while others can be."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

import pyarrow as pa

from pneumonia_core.archives.entries import ImageRef, UnlinkedFile, WholeFile, image_refs
from pneumonia_core.archives.manifests import ABSENT_VERSION
from pneumonia_core.archives.samples import sample_files, storage_of
from pneumonia_core.errors import RejectedImage, Rejection, Remedy
from pneumonia_core.imaging.contract import Decoded
from pneumonia_core.storage.errors import COLD, NO_REGULAR_FILE, REWRITTEN, StorageUnavailable
from pneumonia_core.storage.ranges import read_range

# What a storage that fails, or that is not there, may look like.
_REASONS: Final = frozenset({"not_found", "forbidden", "timeout", "unreadable"})
# What only a storage that works can say.
_ANSWERS: Final = frozenset({COLD, NO_REGULAR_FILE, REWRITTEN})
_FOUND_SAMPLES: Final = 8


@dataclass
class _Storage:
    """Images of a chunk in one storage: those that were read, and those that were not."""

    read: list[str] = field(default_factory=list)
    unread: list[ImageRef] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)


def witnessed(rows: pa.Table, images: Iterable[Decoded]) -> Iterator[Decoded]:
    """The decoded images of a chunk's inventory `rows`, in their order.

    Raises StorageUnavailable after the last one where images could not be read and their storage gives no
    other file either: their rejections then say nothing about them. The machine that read them must call it.
    """
    outcomes: list[tuple[bool, Rejection | None]] = []
    for image in images:
        outcomes.append((image.source.sha256 is not None, image.rejection))
        yield image
    if any(_may_be_the_storage(rejection) for _, rejection in outcomes):
        for (archive, storage), chunk in _by_storage(rows, outcomes).items():
            if chunk.unread:
                _check(archive, storage, chunk)


def _may_be_the_storage(rejection: Rejection | None) -> bool:
    return rejection is not None and rejection.reason in _REASONS and rejection.detail not in _ANSWERS


def _by_storage(
    rows: pa.Table, outcomes: Sequence[tuple[bool, Rejection | None]]
) -> dict[tuple[str, str], _Storage]:
    storages: dict[tuple[str, str], _Storage] = {}
    archives, versions = rows["archive"].to_pylist(), rows["image_version"].to_pylist()
    for ref, archive, version, (was_read, rejection) in zip(
        image_refs(rows), archives, versions, outcomes, strict=True
    ):
        # What was not there when it was listed is missing, and what the listing refused was not asked for.
        if ref.file is None or version == ABSENT_VERSION:
            continue
        chunk = storages.setdefault((archive, storage_of(archive, ref.file)), _Storage())
        if was_read:
            chunk.read.append(ref.file)
        elif rejection is not None and _may_be_the_storage(rejection):
            chunk.unread.append(ref)
            chunk.reasons[rejection.reason] += 1
            if rejection.reason == "not_found" and isinstance(ref.source, WholeFile | UnlinkedFile):
                chunk.gone.append(ref.file)
    return storages


def _check(archive: str, storage: str, chunk: _Storage) -> None:
    """Raise StorageUnavailable unless the storage gives a file, and none of those that were gone."""
    reasons = ", ".join(f"{number} {reason}" for reason, number in chunk.reasons.most_common())
    if any(map(_gives, _spread(chunk.gone))):
        raise StorageUnavailable(
            f"{archive} was away while its images were read ({reasons}), and is back.", Remedy.RUN_AGAIN
        )
    read = _spread(list(dict.fromkeys(chunk.read)))
    found = islice(sample_files(archive, storage, chunk.unread), _FOUND_SAMPLES)
    if not (any(map(_gives, read)) or any(map(_gives, found))):
        raise StorageUnavailable(
            f"{archive}: images cannot be read ({reasons}), and nothing else in it can be read either.",
            Remedy.RESTORE_ARCHIVE,
        )


def _spread(files: list[str]) -> list[str]:
    """Up to three of the files: the last, the middle and the first."""
    positions = dict.fromkeys((len(files) - 1, len(files) // 2, 0)) if files else {}
    return [files[position] for position in positions]


def _gives(file: str) -> bool:
    """Whether a storage gives a file. Raises StorageUnavailable where a bucket fails for minutes."""
    try:
        read_range(file, 0, 1)
    except RejectedImage as rejected:
        return rejected.detail == COLD
    return True

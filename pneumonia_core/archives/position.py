"""Where a listing stood when it was left, and which files come after that place."""

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final

from pneumonia_core.archives.classify import NameClass, classify_named
from pneumonia_core.archives.named_members import MEMBER_SEPARATOR, split_member_uri
from pneumonia_core.errors import RejectedImage
from pneumonia_core.storage.local import raw_path
from pneumonia_core.storage.ranges import stat_file

# Files are listed in the order of these.
_Order = tuple[bytes, ...]


@dataclass(frozen=True)
class ListingPosition:
    """A place in the listing of several archives: after this image of this archive, both by their URIs."""

    archive: str
    image: str


@dataclass(frozen=True)
class Rest:
    """What comes after an `image` in a folder or a bucket, also if it has gone; all where it is None."""

    image: str | None = None

    @property
    def start(self) -> str | None:
        """A URI after which a bucket may begin to list itself, so that no file of the rest is left out."""
        return self.image if self.image in (None, self._file) else self._file[:-1]

    def passes(self, file: str) -> bool:
        """Whether nothing of a file belongs to the rest."""
        return self.image is not None and (_order(file) < self._order or file == self.image)

    def passes_folder(self, folder: str) -> bool:
        """Whether nothing in a local folder belongs to the rest."""
        if self.image is None:
            return False
        order = _order(folder)
        return order < self._order and self._order[: len(order)] != order

    def within(self, file: str) -> str | None:
        """The image after which the rest begins in this file; None where all of the file belongs to it."""
        return self.image if file == self._file else None

    def holds_file_of(self, image: str) -> bool:
        """Whether all of the file that holds an image belongs to the rest."""
        return _order(containing_file(image)) > self._order

    @cached_property
    def _file(self) -> str:
        return "" if self.image is None else containing_file(self.image)

    @cached_property
    def _order(self) -> _Order:
        return _order(self._file)


WHOLE: Final = Rest()


def containing_file(image: str) -> str:
    """The URI of the file that holds an image: the image itself, or its tar or zip."""
    member = split_member_uri(image)
    if member is not None:
        return member[0]
    # A tar or zip without a suffix. A folder may be called so as well.
    ends = (found.start() for found in re.finditer(MEMBER_SEPARATOR, image))
    return next((image[:end] for end in ends if _is_container(image[:end])), image)


@lru_cache(maxsize=256)
def _is_container(uri: str) -> bool:
    try:
        return classify_named(stat_file(uri)) is NameClass.ARCHIVE
    except RejectedImage:
        return False


def _order(file: str) -> _Order:
    """Local files come folder by folder, in a folder by name. Azure's come before the folders beside them."""
    scheme, _, path = file.partition("://")
    if scheme == "file":
        return tuple(raw_path(file).split(b"/"))
    key = path.encode("utf-8", "surrogatepass")
    if scheme == "abfs":
        *folders, name = key.split(b"/")
        return (*folders, b"", name)
    return (key,)

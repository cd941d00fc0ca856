"""Members of tars and zips that a table names by their URI, as `s3://bucket/a.tar!/member.jpg`."""

import threading
from collections import Counter
from typing import Final

from pneumonia_core.archives.classify import ARCHIVE_SUFFIXES, NameClass
from pneumonia_core.archives.containers.members import list_classified
from pneumonia_core.archives.entries import ListedImage
from pneumonia_core.storage.ranges import stat_file

MEMBER_SEPARATOR: Final = "!/"
# About 500 bytes each.
MAX_MEMBERS_HELD: Final = 1_000_000


def split_member_uri(uri: str) -> tuple[str, str] | None:
    """The URI of a tar or zip and the name of the member in it; None where `uri` is that of a file of its
    own."""
    start = 0
    while (end := uri.find(MEMBER_SEPARATOR, start)) >= 0:
        if uri[:end].lower().endswith(ARCHIVE_SUFFIXES):
            return uri[:end], uri[end + len(MEMBER_SEPARATOR) :]
        start = end + 1
    return None


class NamedMembers:
    """Finds members by container and name. It lists each container once, unless too many members are held.

    `find` may be called from several threads.
    """

    def __init__(self, max_held: int = MAX_MEMBERS_HELD) -> None:
        self._max_held = max_held
        self._held = 0
        self._lock = threading.Lock()
        self._listings: dict[str, dict[str, ListedImage]] = {}

    def find(self, container: str, name: str) -> ListedImage | None:
        """The member as listed, None where the container has no image of that name.

        Raises RejectedImage where the container cannot be looked up, PneumoniaError where its storage fails.
        """
        with self._lock:
            if container not in self._listings:
                self._list(container)
            return self._listings[container].get(f"{container}{MEMBER_SEPARATOR}{name}")

    def _list(self, container: str) -> None:
        if self._held > self._max_held:
            self._listings.clear()
            self._held = 0
        members = list_classified(stat_file(container), NameClass.ARCHIVE, Counter())
        self._listings[container] = {member.uri: member for member in members}
        self._held += len(self._listings[container])

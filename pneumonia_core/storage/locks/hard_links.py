"""Whether a disk has hard links, by which commits to the table exclude each other."""

import contextlib
import errno
import os
import uuid
from typing import Final

from pneumonia_core.errors import InvalidInput, Remedy
from pneumonia_core.storage.errors import error_text
from pneumonia_core.storage.files import delete_file, write_bytes
from pneumonia_core.storage.location import Location

_NO_HARD_LINKS: Final = frozenset((errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK))


def check_hard_links(folder: Location) -> None:
    """Raise InvalidInput where the disk of this folder has no hard links.

    By one, deltalake gives a commit its name only where no other has it. Its own error says no more than
    "operation not permitted". Writes two small files there, and deletes them. Raises OSError where the disk
    refuses that.
    """
    probe = folder.child(f".link-{uuid.uuid4().hex[:8]}")
    link = folder.child(f"{probe.name}-2")
    try:
        write_bytes(probe, b"", durable=False)
        os.link(probe.path, link.path)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        raise InvalidInput(
            f"{folder.uri}: this file system has no hard links ({error_text(error)}), by which commits to "
            "the table exclude each other. Keep results on a local disk, NFS or S3, not on CIFS or exFAT.",
            Remedy.OTHER_RESULTS,
        ) from error
    finally:
        for file in (link, probe):
            with contextlib.suppress(OSError):
                delete_file(file)

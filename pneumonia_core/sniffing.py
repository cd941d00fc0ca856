"""Whether what has no telling name is an image: its first bytes say so."""

from typing import Final

from pneumonia_core.errors import RejectedImage
from pneumonia_core.images import sniff_format
from pneumonia_core.stored import StoredFile, read_range

SNIFFED_BYTES: Final = 512


def looks_like_image(stored: StoredFile) -> bool:
    """Whether a file begins as an image does. One that cannot be read may be an image: it becomes a row that says why it
    could not be read."""
    try:
        return is_image_head(read_range(stored.uri, 0, SNIFFED_BYTES))
    except RejectedImage:
        return True


def is_image_head(head: bytes) -> bool:
    """Whether these are the first bytes of an image."""
    try:
        sniff_format(head)
    except RejectedImage:
        return False
    return True

"""Whether a bucket carries out conditional writes, on which leases and commits depend."""

import secrets
from typing import Final

from pneumonia_core.errors import InvalidInput, Remedy
from pneumonia_core.storage.s3 import objects as s3_objects

_NO_VERSION: Final = "0" * 32


def check_conditional_writes(folder: str) -> None:
    """Raise InvalidInput where the bucket of this folder takes a conditional write for an unconditional one.

    Writes a small object there, and deletes it. Raises OSError where the bucket refuses that.
    """
    uri = f"{folder}/.conditional-write-{secrets.token_hex(8)}"
    try:
        version = s3_objects.put(uri, b"first")
        s3_objects.put(uri, b"over any", only_if="")
        s3_objects.put(uri, b"over another version", only_if=_NO_VERSION)
        kept = s3_objects.get_whole(uri) == b"first"
        s3_objects.put(uri, b"last", only_if=version)
        # What the bucket holds counts: its answers may have been lost.
        replaced = s3_objects.get_whole(uri) == b"last"
    finally:
        s3_objects.delete([uri])
    if not (kept and replaced):
        raise InvalidInput(
            f"s3://{s3_objects.split_uri(uri)[0]} does not carry out conditional writes (If-None-Match, "
            "If-Match): two runs could both commit the same version of the table.",
            Remedy.OTHER_RESULTS,
        )

"""The pseudonym under which a DICOM image can be joined back, and the key that makes it."""

import hashlib
import hmac
import os
from typing import Final

HASH_KEY_VARIABLE: Final = "PNEUMONIA_HASH_KEY"
# Stands for the digest of a node that has no key, where None says that the node was not asked.
NO_HASH_KEY: Final = ""


def study_key(uid: str | None) -> str | None:
    """HMAC-SHA-256 in hex of a SOPInstanceUID under the key in the environment variable PNEUMONIA_HASH_KEY.

    None without key or identifier. Workers of a local Ray inherit the variable; on a cluster it comes from a
    secret mounted into every node's environment, never from arguments or runtime environments.
    """
    key = os.environ.get(HASH_KEY_VARIABLE)
    return hmac.new(os.fsencode(key), uid.encode(), hashlib.sha256).hexdigest() if key and uid else None


def hash_key_digest() -> str | None:
    """What tells keys of `study_key` apart, and not what they are; None without a key."""
    key = os.environ.get(HASH_KEY_VARIABLE)
    return hmac.new(os.fsencode(key), b"digest", hashlib.sha256).hexdigest()[:16] if key else None

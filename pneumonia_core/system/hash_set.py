"""A set of strings stored as 64-bit hashes, 8 bytes each."""

import hashlib
from typing import Final

import numpy as np

_RECENT: Final = 65_536


class HashSet:
    """A set of strings to which strings are added; it stores 64 bits of their hash.

    Among ten million strings, two have the same hash with a probability of 3e-6. The newest `recent` hashes
    are in a Python set, the others in a sorted array.
    """

    def __init__(self, recent: int = _RECENT) -> None:
        self._most_recent = recent
        self._recent: set[int] = set()
        self._sorted = np.empty(0, np.uint64)

    def add(self, text: str) -> bool:
        """Add a string; whether it is new."""
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        key = int.from_bytes(digest, "little")
        if key in self._recent or self._in_sorted(key):
            return False
        self._recent.add(key)
        if len(self._recent) == self._most_recent:
            fresh = np.fromiter(self._recent, np.uint64, self._most_recent)
            # A stable sort is timsort, which merges the sorted part with the rest; np.union1d hashes all of
            # them each time.
            self._sorted = np.concatenate([self._sorted, fresh])
            self._sorted.sort(kind="stable")
            self._recent = set()
        return True

    def _in_sorted(self, key: int) -> bool:
        if not self._sorted.size:
            return False
        wanted = np.uint64(key)
        at = int(np.searchsorted(self._sorted, wanted))
        return at < self._sorted.size and bool(self._sorted[at] == wanted)

"""Which of very many names came before, in eight bytes each."""

import hashlib
from typing import Final

import numpy as np

_RECENT: Final = 65_536


class HashSet:
    """A growing set of texts, known by 64 bits of a hash: among ten million, two are mistaken for one with a
    probability of 3e-6."""

    def __init__(self) -> None:
        self._recent: set[int] = set()
        self._sorted = np.empty(0, np.uint64)

    def add(self, text: str) -> bool:
        """Whether the text is new."""
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        key = int.from_bytes(digest, "little")
        if key in self._recent or self._in_sorted(key):
            return False
        self._recent.add(key)
        if len(self._recent) == _RECENT:
            fresh = np.fromiter(self._recent, np.uint64, _RECENT)
            # Stable is timsort, which merges a sorted stretch with the rest: np.union1d builds a table of all each time.
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

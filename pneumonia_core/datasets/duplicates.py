"""Images that are the same file, and images that look the same, among very many."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

# Of the 255 bits of image_facts.perceptual_hash. Among 5,232 paediatric chest X-rays, no two different ones
# differed in fewer than 33 bits. Encoding at quality 30, halving and blurring changed 10 or fewer, gamma and
# contrast 16.
MAX_DISTANCE: Final = 24
_COMPARED_AT_ONCE: Final = 4_000_000
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Alike:
    """Groups of images, each an array of indices, and how many pairs of images are alike."""

    groups: list[Indices]
    pairs: int

    @property
    def images(self) -> int:
        return sum(len(group) for group in self.groups)


def same_files(digests: Sequence[str | None]) -> Alike:
    """The images with the same SHA-256; an image with None is equal to no other."""
    known = np.array([number for number, digest in enumerate(digests) if digest is not None], np.int64)
    texts = np.array([digests[number] for number in known], dtype=str)
    groups = [known[group] for group in _equal(texts) if len(group) > 1]
    return Alike(groups, sum(len(group) * (len(group) - 1) // 2 for group in groups))


def lookalikes(hashes: Sequence[bytes | None], digests: Sequence[str | None]) -> Alike:
    """The images of different contents whose perceptual hashes differ in MAX_DISTANCE bits or fewer.

    Each group is a connected component of such pairs. Files with the same contents count as one image. The
    hashes are cut into sixteen bands, and only images that agree in a whole band are compared. That finds
    every pair with up to 15 different bits, and 98 % of those with 24 if the bits are independent. The time
    grows with the number of images, not its square.
    """
    kept = _first_of_each(hashes, digests)
    if len(kept) < 2:
        return Alike([], 0)
    bits = np.frombuffer(b"".join(hashes[number] or b"" for number in kept), np.uint8).reshape(len(kept), -1)
    # Images of the same hash would all be compared with each other; they count as one, with a weight.
    distinct, member, counts = np.unique(bits, axis=0, return_inverse=True, return_counts=True)
    pairs = _near_pairs(distinct)
    weights = counts.astype(np.int64)
    total = int((weights * (weights - 1) // 2).sum() + (weights[pairs[:, 0]] * weights[pairs[:, 1]]).sum())
    component = _components(len(distinct), pairs)[member.reshape(-1)]
    return Alike([kept[group] for group in _equal(component) if len(group) > 1], total)


def _first_of_each(hashes: Sequence[bytes | None], digests: Sequence[str | None]) -> Indices:
    seen: set[str | None] = set()
    kept = []
    for number, (looks, digest) in enumerate(zip(hashes, digests, strict=True)):
        if looks is not None and digest not in seen:
            seen.add(digest)
            kept.append(number)
    return np.array(kept, np.int64)


def _near_pairs(hashes: npt.NDArray[np.uint8]) -> Indices:
    """The pairs [P, 2] of rows uint8 [N, 32] that agree in a band and differ in MAX_DISTANCE bits at most."""
    words = np.ascontiguousarray(hashes).view(np.uint64)
    bands = np.ascontiguousarray(hashes).view(np.uint16)
    found = [np.empty((0, 2), np.int64)]
    for band in bands.T:
        for first, second in _pairs_within(band):
            distance = np.bitwise_count(words[first] ^ words[second]).sum(axis=1)
            near = distance <= MAX_DISTANCE
            if near.any():
                ordered = np.sort(np.stack([first[near], second[near]], axis=1), axis=1)
                found.append(ordered)
    return np.unique(np.concatenate(found), axis=0)


def _pairs_within(band: npt.NDArray[np.uint16]) -> Iterator[tuple[Indices, Indices]]:
    """All pairs of positions with the same value, some millions at a time.

    In the order of the values, each row is compared with the next row, then with the second next, and so on
    until no values agree.
    """
    order = np.argsort(band, kind="stable").astype(np.int64)
    values = band[order]
    rows = np.arange(len(order) - 1)
    step = 1
    first: list[Indices] = []
    second: list[Indices] = []
    held = 0
    while len(rows):
        rows = rows[rows + step < len(order)]
        rows = rows[values[rows] == values[rows + step]]
        first.append(order[rows])
        second.append(order[rows + step])
        held += len(rows)
        step += 1
        if held >= _COMPARED_AT_ONCE or not len(rows):
            yield np.concatenate(first), np.concatenate(second)
            first, second, held = [], [], 0


def _components(count: int, pairs: Indices) -> Indices:
    """For each of `count` nodes the number of its connected component."""
    ones = np.ones(len(pairs), np.int8)
    graph = coo_matrix((ones, (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def _equal(values: npt.NDArray[Any]) -> list[Indices]:
    """The positions of each distinct value, in groups ordered by their first position."""
    if not len(values):
        return []
    order = np.argsort(values, kind="stable").astype(np.int64)
    starts = np.flatnonzero(values[order][1:] != values[order][:-1]) + 1
    return sorted(np.split(order, starts), key=lambda group: int(group[0]))

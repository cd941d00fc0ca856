"""What a listing leaves out, by kind, and which of it may hold images."""

from collections.abc import Mapping
from typing import Final

# Whatever else is skipped may hold an image that nobody will miss: an archive cut short, a folder out of reach.
HARMLESS: Final = frozenset(
    {"hidden", "no image", "no regular file", "named twice in a manifest", "listed by an earlier archive"}
)


def may_hold_images(skipped: Mapping[str, int]) -> dict[str, int]:
    """The kinds of what was skipped that images may be in."""
    return {kind: number for kind, number in skipped.items() if kind not in HARMLESS}


def in_words(skipped: Mapping[str, int]) -> str:
    """The counts by kind in one line, most first: `12 hidden, 1 archive that is cut short`."""
    most_first = sorted(skipped.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{number:,} {kind}" for kind, number in most_first)

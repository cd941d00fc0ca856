"""Mistakes as a page shows them: the picture beside the same picture under the map of what spoke for it."""

import base64
import io
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from pneumonia_core.reports.mistakes import Mistake

_LARGEST_SIDE: Final = 224
_QUALITY: Final = 80
_WARM: Final = np.array([255.0, 96.0, 0.0], np.float32)
_OPACITY: Final = 0.6


@dataclass(frozen=True)
class Explanation:
    """A mistake with its pictures as `data:` URIs. `name` is that of the file; without a map, `overlay` is
    None, and `empty` says that no part of the picture spoke for what was found.
    """

    mistake: Mistake
    name: str
    picture: str
    overlay: str | None
    empty: bool = False


@dataclass(frozen=True)
class Explanations:
    """The worst mistakes of an evaluation, `unread` of which could not be read again.

    `cells` is the number of cells along a side of a map, None without maps. The maps are those of one member
    of `members`, for the image that is not mirrored.
    """

    shown: list[Explanation]
    unread: int = 0
    cells: int | None = None
    members: int = 1
    mirrored: bool = False


def explanation(
    mistake: Mistake, name: str, pixels: npt.NDArray[np.uint8], activation: npt.NDArray[np.float32] | None
) -> Explanation:
    """The mistake on `pixels` uint8 [S, S], with its map `activation` float32 [h, w] from 0 to 1."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE))
    if activation is None:
        return Explanation(mistake, name, _data_uri(picture), None)
    overlay = _data_uri(_overlaid(picture, activation))
    return Explanation(mistake, name, _data_uri(picture), overlay, empty=not activation.any())


def _overlaid(picture: Image.Image, activation: npt.NDArray[np.float32]) -> Image.Image:
    """The grey picture with a warm colour over it, as opaque as the map is high."""
    heights = Image.fromarray(activation.astype(np.float32)).resize(picture.size, Image.Resampling.BILINEAR)
    opacity = _OPACITY * np.clip(np.asarray(heights), 0, 1)[..., None]
    grey = np.asarray(picture, np.float32)[..., None]
    return Image.fromarray((grey * (1 - opacity) + _WARM * opacity).round().astype(np.uint8))


def _data_uri(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")

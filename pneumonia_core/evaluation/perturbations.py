"""Perturbations: changes of a picture that leave the lungs as they are."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter, ImageOps

from pneumonia_core.imaging.decode import decode, read_picture, to_square

# Classes whose median aspects differ by less have no aspects to swap.
MIN_ASPECT_RATIO: Final = 1.01
FRAME_SHARE: Final = 0.02
Change = Callable[[Image.Image, int, float], Image.Image]


@dataclass(frozen=True)
class Perturbation:
    """One way to change a grey picture: `change`, or re-encoding as JPEG of a `quality`.

    `change` gets the picture, the side of the network's square in pixels, and the aspect (width / height) to
    aim at.
    """

    name: str
    label: str
    change: Change | None = None
    quality: int | None = None
    aims_at_aspect: bool = False


def _blurred(picture: Image.Image, size: int, aspect: float) -> Image.Image:
    # One pixel of the network's square, whatever the size of the source.
    return picture.filter(ImageFilter.GaussianBlur((picture.width / size, picture.height / size)))


def _brightened(picture: Image.Image, size: int, aspect: float, *, factor: float) -> Image.Image:
    return picture.point([min(255, round(level * factor)) for level in range(256)])


def _rotated(picture: Image.Image, size: int, aspect: float, *, degrees: float) -> Image.Image:
    return picture.rotate(degrees, Image.Resampling.BICUBIC)


def _framed(picture: Image.Image, size: int, aspect: float) -> Image.Image:
    across, down = (max(1, round(FRAME_SHARE * side)) for side in picture.size)
    inside = picture.crop((across, down, picture.width - across, picture.height - down))
    return ImageOps.expand(inside, (across, down))


def _stretched(picture: Image.Image, size: int, aspect: float) -> Image.Image:
    wider = (aspect * picture.height / picture.width) ** 0.5
    return picture.resize(
        (max(1, round(picture.width * wider)), max(1, round(picture.height / wider))),
        Image.Resampling.BICUBIC,
    )


def _cut(picture: Image.Image, size: int, aspect: float) -> Image.Image:
    width = min(picture.width, max(1, round(picture.height * aspect)))
    height = min(picture.height, max(1, round(picture.width / aspect)))
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))


PERTURBATIONS: Final = (
    Perturbation("jpeg_q50", "encoded as JPEG, quality 50", quality=50),
    Perturbation("jpeg_q75", "encoded as JPEG, quality 75", quality=75),
    Perturbation("jpeg_q95", "encoded as JPEG, quality 95", quality=95),
    Perturbation("blurred", "blurred by a pixel of the network’s", _blurred),
    Perturbation("brighter_10", "10 % brighter", partial(_brightened, factor=1.1)),
    Perturbation("darker_10", "10 % darker", partial(_brightened, factor=0.9)),
    Perturbation("rotated_left_3", "rotated by 3° to the left", partial(_rotated, degrees=3)),
    Perturbation("rotated_right_3", "rotated by 3° to the right", partial(_rotated, degrees=-3)),
    Perturbation("framed", "with a black frame over 2 % of each side", _framed),
    Perturbation(
        "aspect_stretched", "stretched to the other class’s median aspect", _stretched, aims_at_aspect=True
    ),
    Perturbation("aspect_cut", "cut to the other class’s median aspect", _cut, aims_at_aspect=True),
)


def perturbed_squares(data: bytes, size: int, aspect: float | None) -> npt.NDArray[np.uint8]:
    """The network's squares of an image as it is and after each perturbation: uint8 [1 + P, size, size].

    The source is re-encoded at its full size. The other changes are made to the picture as the decoder gives
    it, so that nothing but the change makes a difference. Then each goes through the image contract. Without
    an `aspect` to aim at, the perturbations of the aspect are left out (`perturbations`). Raises
    RejectedImage.
    """
    whole, decoded = read_picture(data), read_picture(data, size)
    changed = [
        _encoded(whole, one.quality, size) if one.quality else _changed(decoded, one, size, aspect or 1.0)
        for one in perturbations(aspect)
    ]
    return np.stack([to_square(decoded, size), *changed])


def perturbations(aspect: float | None) -> list[Perturbation]:
    """The perturbations that are possible with this aspect to aim at."""
    return [one for one in PERTURBATIONS if aspect is not None or not one.aims_at_aspect]


def _encoded(picture: Image.Image, quality: int, size: int) -> np.ndarray:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return decode(buffer.getvalue(), size)


def _changed(picture: Image.Image, perturbation: Perturbation, size: int, aspect: float) -> np.ndarray:
    assert perturbation.change is not None
    return to_square(perturbation.change(picture, size, aspect), size)


def swapped_aspects(
    ill: npt.NDArray[np.bool_], widths: npt.ArrayLike, heights: npt.ArrayLike
) -> dict[bool, float] | None:
    """The median aspect of the other class, by whether an image shows pneumonia (`ill` bool [N]).

    None where both classes have the same aspect, or one class is absent. Sizes are those of the sources, NaN
    where unknown.
    """
    aspects = np.asarray(widths, np.float64) / np.asarray(heights, np.float64)
    known = np.isfinite(aspects)
    if not (known & ill).any() or not (known & ~ill).any():
        return None
    medians = {sick: float(np.median(aspects[known & (ill == sick)])) for sick in (False, True)}
    if max(medians.values()) / min(medians.values()) < MIN_ASPECT_RATIO:
        return None
    return {sick: medians[not sick] for sick in medians}

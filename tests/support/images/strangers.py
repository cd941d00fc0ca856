"""Pictures other than chest X-rays, drawn for tests: uint8 [N, S, S]."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from scipy.ndimage import gaussian_filter

DRAWN_SIDE = 448


def strangers(size: int, count: int) -> dict[str, np.ndarray]:
    """`count` pictures of each kind, `size` px."""
    return {
        name: np.stack([_shrunk(draw(np.random.default_rng([seed, n])), size) for n in range(count)])
        for seed, (name, draw) in enumerate(_KINDS.items())
    }


def _knee(rng: np.random.Generator) -> Image.Image:
    image, draw, soft, bone = _film(rng)
    width, shaft, middle = rng.integers(150, 200), rng.integers(55, 75), 224 + rng.integers(-15, 15)
    draw.rectangle((middle - width, 0, middle + width, 448), fill=soft)
    draw.rectangle((middle - shaft, 0, middle + shaft, 150), fill=bone)
    draw.ellipse((middle - shaft * 1.8, 110, middle - 5, 220), fill=bone)
    draw.ellipse((middle + 5, 110, middle + shaft * 1.8, 220), fill=bone)
    draw.ellipse((middle - shaft * 1.8, 228, middle + shaft * 1.8, 300), fill=bone)
    draw.rectangle((middle - shaft * 0.9, 270, middle + shaft * 0.6, 448), fill=bone)
    draw.rectangle((middle + shaft * 1.1, 300, middle + shaft * 1.5, 448), fill=bone - 20)
    return _developed(image, rng)


def _hand(rng: np.random.Generator) -> Image.Image:
    image, draw, soft, bone = _film(rng)
    draw.ellipse((120, 200, 330, 420), fill=soft)
    for finger in range(5):
        angle = np.deg2rad(-150 + 30 * finger + rng.uniform(-5, 5))
        for fill, width in ((soft, 46), (bone, 20)):
            for joint in range(4):
                near, far = 60 + 45 * joint, 95 + 45 * joint
                start = (224 + np.cos(angle) * near, 300 + np.sin(angle) * near * 1.2)
                end = (224 + np.cos(angle) * far, 300 + np.sin(angle) * far * 1.2)
                draw.line((*start, *end), fill=fill, width=width)
    return _developed(image, rng)


def _page_of_text(rng: np.random.Generator) -> Image.Image:
    image = Image.new("L", (DRAWN_SIDE, DRAWN_SIDE), int(rng.integers(225, 255)))
    draw = ImageDraw.Draw(image)
    for line in range(20, 420, int(rng.integers(16, 28))):
        words = [
            "".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), rng.integers(2, 9))) for _ in range(12)
        ]
        draw.text((20, line), " ".join(words), fill=int(rng.integers(0, 60)), font_size=13)
    return image


def _photograph(rng: np.random.Generator) -> Image.Image:
    """A landscape as light makes it: sky, hills of fractal texture, a house with hard edges."""
    texture = sum(scale * _noise(rng, scale) for scale in (1.0, 3.0, 9.0, 27.0)) / 15
    rows = np.linspace(0, 1, DRAWN_SIDE)[:, None]
    horizon = 0.45 + 0.08 * np.sin(np.linspace(0, rng.uniform(4, 9), DRAWN_SIDE))[None]
    picture = np.where(rows < horizon, 225 - 60 * rows, 90 + 45 * texture)
    image = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    left = int(rng.integers(60, 240))
    draw.rectangle((left, 190, left + 130, 320), fill=int(rng.integers(150, 240)))
    draw.polygon(((left - 15, 190), (left + 65, 120), (left + 145, 190)), fill=int(rng.integers(30, 90)))
    for x in (left + 20, left + 80):
        draw.rectangle((x, 220, x + 30, 260), fill=25)
    return image


_KINDS: dict[str, Callable[[np.random.Generator], Image.Image]] = {
    "knee": _knee,
    "hand": _hand,
    "text": _page_of_text,
    "photograph": _photograph,
}


def _film(rng: np.random.Generator) -> tuple[Image.Image, ImageDraw.ImageDraw, int, int]:
    image = Image.new("L", (DRAWN_SIDE, DRAWN_SIDE), int(rng.integers(5, 40)))
    return image, ImageDraw.Draw(image), int(rng.integers(60, 110)), int(rng.integers(170, 230))


def _developed(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    soft = image.rotate(rng.uniform(-12, 12)).filter(ImageFilter.GaussianBlur(rng.uniform(2, 5)))
    grain = 6 * _noise(rng, 16.0) + 3 * _noise(rng, 1.2)
    return Image.fromarray(np.clip(np.asarray(soft, np.float32) + grain, 0, 255).astype(np.uint8))


def _noise(rng: np.random.Generator, scale: float) -> np.ndarray:
    noise = gaussian_filter(rng.standard_normal((DRAWN_SIDE, DRAWN_SIDE)), scale)
    return np.asarray(noise / noise.std())


def _shrunk(image: Image.Image, size: int) -> np.ndarray:
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))

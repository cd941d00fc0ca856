"""Pictures of 10 to 16 bits in 16 are the same in every mode, layout and format."""

import io

import numpy as np
import pytest
from PIL import Image
from support.images.pictures import encoded, picture
from support.images.png_files import png_file
from support.images.tiff_files import tiff_file

from pneumonia_core.errors import RejectedImage
from pneumonia_core.imaging.decode import decode

SIDE = 64
REFERENCE = decode(encoded(Image.fromarray(picture()), "PNG"), SIDE).astype(int)


def difference(data: bytes) -> float:
    return float(np.abs(decode(data, SIDE) - REFERENCE).mean())


def deep(bits: int, channels: int, alpha: int | None = None) -> np.ndarray:
    """The picture uint16 [H, W, channels] of so many bits, the last of them alpha where it is given."""
    grey = np.rint(picture() / 255 * ((1 << bits) - 1)).astype(np.uint16)
    values = np.stack([grey] * channels, -1)
    if alpha is not None:
        values[..., -1] = alpha
    return values


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("interlaced", [False, True])
def test_png_has_the_full_range_of_its_real_depth_in_every_mode(bits, channels, interlaced):
    values = deep(bits, channels, 65535 if channels in (2, 4) else None)
    assert difference(png_file(values, interlaced)) <= 1


@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize(
    ("channels", "extra"),
    [(1, ()), (3, ()), (2, (2,)), (2, (1,)), (2, (0,)), (4, (2,)), (4, (1,)), (4, (0,))],
)
@pytest.mark.parametrize(("planar", "deflated"), [(1, False), (1, True), (2, False)])
@pytest.mark.parametrize("order", ["<", ">"])
def test_tiff_has_the_full_range_of_its_real_depth_in_every_mode(
    bits, channels, extra, planar, deflated, order
):
    values = deep(bits, channels, 65535 if extra else None)
    assert difference(tiff_file(values, order, planar, deflated, extra)) <= 1


def test_alpha_of_fewer_bits_is_as_opaque_as_it_gets():
    values = deep(12, 4, 4095)
    assert difference(png_file(values)) <= 1
    assert difference(tiff_file(values, extra=(2,))) <= 1
    values[:40, :, 3] = 0
    black = picture()
    black[:40] = 0
    reference = decode(encoded(Image.fromarray(black), "PNG"), SIDE).astype(int)
    assert np.abs(decode(png_file(values), SIDE) - reference).mean() <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_hot_pixels_do_not_darken_the_picture(channels):
    values = deep(12, channels)
    values[60, 40] = 65535
    values[3, 3:8] = 40000
    for data in (png_file(values), tiff_file(values), tiff_file(values, deflated=True)):
        assert difference(data) <= 3


def test_colours_become_grey_by_their_luma():
    red = deep(12, 3)
    red[..., 1:] = 0
    bright = Image.merge("RGB", [Image.fromarray(picture()), *[Image.new("L", (90, 120))] * 2])
    reference = decode(encoded(bright, "PNG"), SIDE).astype(int)
    assert np.abs(decode(png_file(red), SIDE) - reference).mean() <= 1


def test_orientation_and_negatives_are_those_of_the_deep_picture():
    values = np.ascontiguousarray(np.rot90(deep(12, 3), 1))
    assert difference(tiff_file(values, tag274=6)) <= 1
    grey = 4095 - deep(12, 2, 65535)
    grey[..., 1] = 65535
    assert difference(tiff_file(grey, extra=(2,), tag262=0)) <= 1


def test_compressed_planes_whose_depth_cannot_be_known_are_unsupported():
    with pytest.raises(RejectedImage) as caught:
        decode(tiff_file(deep(12, 3), planar=2, deflated=True), SIDE)
    assert caught.value.reason == "unsupported"
    assert difference(tiff_file(deep(16, 3), planar=2, deflated=True)) <= 1


def test_deep_jpeg_2000_is_read():
    for bits in (12, 16):
        values = deep(bits, 1)[..., 0]
        assert difference(encoded(Image.fromarray(values), "JPEG2000")) <= 1
        file = io.BytesIO()
        Image.fromarray(values).save(file, "JPEG2000", no_jp2=True)
        assert difference(file.getvalue()) <= 1

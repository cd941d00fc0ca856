"""The image contract: one grey square whatever came in, or one of the reasons."""

import struct

import numpy as np
import pytest
from PIL import Image
from support.images.pictures import encoded, picture, png_header

from pneumonia_core.errors import RejectedImage
from pneumonia_core.imaging.decode import decode, read_image

SIDE = 64


def reason_of(data: bytes) -> str:
    with pytest.raises(RejectedImage) as caught:
        decode(data, SIDE)
    return caught.value.reason


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_lossless_formats_give_the_same_square(kind, mode):
    reference = decode(encoded(Image.fromarray(picture()), "PNG"), SIDE)
    assert reference.shape == (SIDE, SIDE)
    assert reference.dtype == np.uint8
    data = encoded(Image.fromarray(picture()).convert(mode), kind)
    np.testing.assert_allclose(decode(data, SIDE).astype(int), reference.astype(int), atol=1)


def test_jpeg_is_close_to_the_picture_and_tells_its_source_size():
    data = encoded(Image.fromarray(picture(1200, 900)), "JPEG", quality=95)
    decoded = read_image(data, SIDE)
    source = decoded.source
    reference = decode(encoded(Image.fromarray(picture(1200, 900)), "PNG"), SIDE)
    assert np.abs(decoded.pixels.astype(int) - reference).max() <= 4
    assert (source.format, source.width, source.height) == ("jpeg", 900, 1200)


def test_encoder_that_a_picture_came_through_is_not_seen():
    """A thumbnail that somebody has written as JPEG, and the original that was not: the same but for
    rounding."""
    original = Image.fromarray(picture(900, 700))
    thumbnail = original.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    squares = [
        decode(data, SIDE).astype(int)
        for data in (encoded(original, "PNG"), encoded(thumbnail, "JPEG", quality=75))
    ]
    assert np.abs(squares[0] - squares[1]).max() <= 2


@pytest.mark.parametrize("bits", [12, 16])
def test_16_bit_png_gives_the_same_square_as_8_bit(bits):
    values = (picture().astype(np.float64) / 255 * (2**bits - 1)).astype(np.uint16)
    values[0, 0] = 2**bits - 1
    square = decode(encoded(Image.fromarray(values), "PNG"), SIDE)
    reference = decode(encoded(Image.fromarray(picture()), "PNG"), SIDE)
    # The one white pixel that shows the depth is in the first block of the JPEG.
    np.testing.assert_allclose(square[8:, 8:].astype(int), reference[8:, 8:].astype(int), atol=4)


@pytest.mark.parametrize("bits", [8, 16])
def test_tiff_whose_zero_is_white_is_read_as_the_picture_that_it_shows(bits):
    def square(photometric: int, values: np.ndarray) -> np.ndarray:
        image = Image.fromarray((values.astype(np.uint16) * 257) if bits == 16 else values)
        data = encoded(image, "TIFF")
        # Changed in the file: if it wrote another one, Pillow would turn pixels of 8 bits round.
        tag = struct.pack("<HHIHH", 262, 3, 1, 1, 0)
        assert data.count(tag) == 1
        return decode(data.replace(tag, struct.pack("<HHIHH", 262, 3, 1, photometric, 0)), SIDE).astype(int)

    assert np.abs(square(0, 255 - picture()) - square(1, picture())).max() <= 1


def test_palette_and_alpha_pngs_are_read_as_grey():
    grey = Image.fromarray(picture())
    reference = decode(encoded(grey, "PNG"), SIDE).astype(int)
    opaque = grey.convert("RGBA")
    np.testing.assert_allclose(decode(encoded(opaque, "PNG"), SIDE).astype(int), reference, atol=1)
    palette = grey.convert("P")
    np.testing.assert_allclose(decode(encoded(palette, "PNG"), SIDE).astype(int), reference, atol=2)


def test_exif_orientation_is_applied():
    rotated = Image.fromarray(np.rot90(picture(), 1))
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(rotated, "JPEG", quality=95, exif=exif)
    reference = decode(encoded(Image.fromarray(picture()), "PNG"), SIDE)
    assert np.abs(decode(data, SIDE).astype(int) - reference).mean() < 3


def test_every_broken_file_has_its_reason():
    jpeg = encoded(Image.fromarray(picture(600, 500)), "JPEG")
    assert reason_of(b"") == "empty"
    assert reason_of(b"hello, I am a text file") == "not_an_image"
    assert reason_of(jpeg[: len(jpeg) // 2]) == "truncated"
    assert reason_of(png_header(60_000, 60_000)) == "too_many_pixels"
    assert reason_of(encoded(Image.new("L", (1, 1)), "PNG")) == "too_small"
    assert reason_of(encoded(Image.new("L", (400, 300)), "JPEG")) == "blank"
    frames = [Image.fromarray(picture()), Image.fromarray(picture())]
    assert reason_of(encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:])) == "multi_frame"
    assert reason_of(encoded(Image.fromarray(picture().astype(np.float32)), "TIFF")) == "unsupported"
    assert reason_of(b"\x89PNG\r\n\x1a\n" + b"\x00" * 100) == "corrupt"


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "I;16"])
def test_colour_mode_of_the_source_is_that_of_the_file(mode):
    gray = Image.fromarray(picture(64, 64))
    image = Image.fromarray(picture(64, 64).astype(np.uint16) * 16) if mode == "I;16" else gray.convert(mode)
    assert read_image(encoded(image, "PNG"), SIDE).source.mode == mode


def test_rejected_image_still_tells_its_size():
    rejected = read_image(png_header(60_000, 60_000), SIDE)
    assert rejected.pixels is None
    assert (rejected.source.width, rejected.source.height) == (60_000, 60_000)
    assert rejected.rejection is not None
    assert rejected.rejection.stage == "decode"


def test_jpeg_with_a_scan_bomb_is_refused_before_it_is_decoded():
    jpeg = encoded(Image.fromarray(picture(2000, 2000)), "JPEG", progressive=True)
    assert reason_of(jpeg + b"\xff\xda" * 2000) == "too_slow"

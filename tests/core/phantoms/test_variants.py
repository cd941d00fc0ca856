"""X-rays to measure with: no two are equal, and each is read."""

from pneumonia_core.imaging.decode import read_image
from pneumonia_core.phantoms.variants import DRAWN, jpeg_variants


def test_no_two_variants_have_the_same_bytes_or_pixels():
    jpeg = jpeg_variants((96, 128))
    files = [jpeg(number) for number in range(3 * DRAWN)]
    decoded = [read_image(data, 64) for data in files]
    assert len(set(files)) == len(files)
    assert {(each.source.height, each.source.width) for each in decoded} == {(96, 128)}
    assert len({each.pixels.tobytes() for each in decoded}) == len(files)

"""Damaged manifests and pictures: images or reasons come out, soon, and nothing else."""

import contextlib
import io

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from support.images.archived import jpeg, listing
from support.images.png_files import png_file
from support.images.tiff_files import tiff_file

from pneumonia_core.archives.entries import Refused
from pneumonia_core.archives.manifests import ListingRules, check_manifest
from pneumonia_core.archives.tables.table_files import column_names
from pneumonia_core.errors import InvalidInput, RejectedImage
from pneumonia_core.imaging.decode import decode

# One file may take at most 10 s.
FUZZ = {"deadline": 10_000, "database": None, "suppress_health_check": list(HealthCheck)}


@st.composite
def mutated(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A good file with some bytes changed, dropped, doubled or inserted, or its end cut off.

    Half of the changes go to its first and last bytes, where formats keep what describes the rest.
    """
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 6))):
        last = max(0, len(data) - 1)
        at = draw(
            st.integers(0, last) | st.integers(0, min(200, last)) | st.integers(max(0, last - 200), last)
        )
        change = draw(st.sampled_from(["set", "set", "drop", "double", "insert", "cut"]))
        if change == "set":
            data[at : at + 1] = draw(st.binary(min_size=1, max_size=4))
        elif change == "drop":
            del data[at : at + draw(st.integers(1, 40))]
        elif change == "double":
            data[at:at] = data[at : at + draw(st.integers(1, 40))]
        elif change == "insert":
            data[at:at] = draw(st.binary(max_size=12))
        elif draw(st.integers(0, 7)) == 0:
            del data[at:]
    return bytes(data)


def manifest_bytes(kind: str) -> bytes:
    uris = [
        "x.jpeg",
        "y.jpeg",
        None,
        "Röntgen,\n.jpeg",
        "../out.jpeg",
        "s3://a:b@c/d",
        "file://host/x",
        "x.jpeg",
    ]
    table = pa.table({"uri": uris, "site": [str(number) for number in range(len(uris))]})
    buffer = io.BytesIO()
    pq.write_table(table, buffer) if kind == "parquet" else pacsv.write_csv(table, buffer)
    return buffer.getvalue()


def picture_bytes() -> list[bytes]:
    y, x = np.mgrid[0:48, 0:40]
    grey = (x * 3 + y * 2).astype(np.uint8)
    deep = Image.fromarray((x * 900 + y * 500).astype(np.uint16))
    colours = Image.fromarray(np.stack([grey, grey[::-1], grey], -1))
    exif = Image.Exif()
    exif[0x0112] = 6
    made = []
    for picture, kind, options in (
        (Image.fromarray(grey), "JPEG", {"exif": exif}),
        (colours, "JPEG", {"progressive": True}),
        (Image.fromarray(grey), "PNG", {}),
        (deep, "PNG", {}),
        (colours.quantize(16), "PNG", {"transparency": 3}),
        (colours.convert("RGBA"), "PNG", {}),
        (colours, "BMP", {}),
        (deep, "TIFF", {}),
        (Image.fromarray(grey), "TIFF", {"compression": "tiff_lzw"}),
        (colours, "TIFF", {"compression": "jpeg"}),
        (colours, "TIFF", {"compression": "tiff_adobe_deflate"}),
        (Image.fromarray(grey > 90), "TIFF", {"compression": "group4"}),
        (Image.fromarray(grey), "TIFF", {"save_all": True, "append_images": [colours.resize((20, 24))]}),
        (colours, "TIFF", {"big_tiff": True}),
        (colours, "MPO", {"save_all": True, "append_images": [colours]}),
        (colours.convert("RGBA"), "WEBP", {"lossless": True, "exif": exif}),
        (colours, "WEBP", {"quality": 50}),
        (colours.quantize(16), "GIF", {"transparency": 3}),
        (Image.fromarray(grey), "GIF", {"save_all": True, "append_images": [colours]}),
        (colours, "JPEG2000", {}),
        (deep, "JPEG2000", {"no_jp2": True}),
        (colours.convert("RGBA"), "AVIF", {"quality": 60}),
    ):
        buffer = io.BytesIO()
        picture.save(buffer, kind, **options)
        made.append(buffer.getvalue())
    values = np.stack([np.asarray(deep)] * 4, -1)
    for channels, extra in ((2, (2,)), (3, ()), (4, (1,))):
        for planar, deflated in ((1, True), (2, False)):
            made.append(tiff_file(values[..., :channels], ">", planar, deflated, extra))
    return [*made, *(png_file(values[..., :channels]) for channels in (2, 3, 4))]


@pytest.fixture(scope="module")
def ward(tmp_path_factory):
    """A folder with two pictures, where manifests are written; one picture lies outside it."""
    root = tmp_path_factory.mktemp("ward")
    (root / "in").mkdir()
    for number, name in enumerate(("in/x.jpeg", "in/y.jpeg", "out.jpeg")):
        (root / name).write_bytes(jpeg(number))
    return root / "in"


def check_manifest_gives_images_or_a_reason(folder, name: str, data: bytes) -> None:
    (folder / name).write_bytes(data)
    uri = f"file://{folder}/{name}"
    rules = ListingRules(carry=("site",))
    with contextlib.suppress(InvalidInput):
        column_names(uri)
    with contextlib.suppress(InvalidInput):
        check_manifest(uri, rules)
    with contextlib.suppress(InvalidInput):
        images, _ = listing(folder / name, rules)
        assert len({image.uri for image in images}) == len(images)
        outside = [image for image in images if not image.uri.startswith(f"file://{folder}/")]
        assert all(isinstance(image.source, Refused) for image in outside)


def check_is_rejected_or_a_square(data: bytes) -> None:
    square = None
    with contextlib.suppress(RejectedImage):
        square = decode(data, 32)
    assert square is None or (square.shape, square.dtype) == ((32, 32), np.uint8)


manifests = st.sampled_from(["csv", "parquet"]).flatmap(
    lambda kind: st.tuples(st.just(f"m.{kind}"), mutated([manifest_bytes(kind)]))
)
pictures = mutated(picture_bytes())


@settings(max_examples=150, **FUZZ)
@given(manifest=manifests)
def test_mutated_manifest_gives_images_or_a_reason(ward, manifest):
    check_manifest_gives_images_or_a_reason(ward, *manifest)


@settings(max_examples=300, **FUZZ)
@given(data=pictures)
def test_mutated_picture_is_rejected_or_a_square(data):
    check_is_rejected_or_a_square(data)


@pytest.mark.soak
@settings(max_examples=50_000, **FUZZ)
@given(manifest=manifests)
def test_50000_mutated_manifests_give_images_or_a_reason(ward, manifest):
    check_manifest_gives_images_or_a_reason(ward, *manifest)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@settings(max_examples=100_000, **FUZZ)
@given(data=pictures)
def test_100000_mutated_pictures_are_rejected_or_squares(data):
    check_is_rejected_or_a_square(data)

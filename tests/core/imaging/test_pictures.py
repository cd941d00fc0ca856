"""Pictures that every viewer opens: other formats, broken extras, previews beside them."""

import io
import struct
import zipfile
import zlib
from collections import Counter

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin
from support.images.pictures import encoded, picture
from support.images.tiff_files import tiff_file

from pneumonia_core.archives.archive import list_archive
from pneumonia_core.archives.skipped import SkipReason, may_hide_images
from pneumonia_core.errors import RejectedImage
from pneumonia_core.imaging.decode import decode, read_image
from pneumonia_core.imaging.jpeg_frame import count_scans

SIDE = 64
GREY = Image.fromarray(picture())
REFERENCE = decode(encoded(GREY, "PNG"), SIDE).astype(int)
JPEG = encoded(GREY, "JPEG", quality=95)


def reason_of(data: bytes) -> str:
    with pytest.raises(RejectedImage) as caught:
        decode(data, SIDE)
    return caught.value.reason


def difference(data: bytes) -> float:
    return float(np.abs(decode(data, SIDE) - REFERENCE).mean())


def jpeg_with(segment: bytes, marker: int = 0xE1) -> bytes:
    """The JPEG with one more segment at its start."""
    return JPEG[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(segment) + 2) + segment + JPEG[2:]


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


@pytest.mark.parametrize(
    ("name", "options", "tolerance"),
    [
        ("WEBP", {"lossless": True}, 1),
        ("WEBP", {"quality": 90}, 4),
        ("GIF", {}, 1),
        ("JPEG2000", {}, 1),
        ("JPEG2000", {"no_jp2": True}, 1),
        ("AVIF", {"quality": 95}, 4),
    ],
)
def test_pictures_of_other_formats_are_scored(name, options, tolerance):
    data = encoded(GREY.convert("RGB"), name, **options)
    assert difference(data) <= tolerance
    source = read_image(data, SIDE).source
    assert (source.format, source.width, source.height) == (name.lower(), 90, 120)


def test_pictures_with_alpha_are_on_black_in_other_formats_too():
    clear = GREY.convert("RGBA")
    clear.paste((255, 255, 255, 0), (0, 0, 90, 40))
    black = GREY.copy()
    black.paste(0, (0, 0, 90, 40))
    reference = decode(encoded(black, "PNG"), SIDE).astype(int)
    for name, options in (("WEBP", {"lossless": True}), ("JPEG2000", {}), ("AVIF", {"quality": 95})):
        assert np.abs(decode(encoded(clear, name, **options), SIDE) - reference).mean() <= 4, name


@pytest.mark.parametrize("name", ["GIF", "WEBP", "AVIF", "PNG"])
def test_moving_pictures_are_multi_frame(name):
    assert reason_of(encoded(GREY, name, save_all=True, append_images=[GREY.rotate(180)])) == "multi_frame"


def unread_files() -> dict[str, bytes]:
    nifti = struct.pack("<i", 348) + bytes(340) + b"n+1\0" + bytes(300)
    analyze = struct.pack(">i", 348) + bytes(34) + b"r" + bytes(600)
    return {
        "a.heic": struct.pack(">I", 24) + b"ftypheic" + bytes(4) + b"mif1heic" + bytes(300),
        "b.HEIF": struct.pack(">I", 24) + b"ftypmif1" + bytes(4) + b"mif1heic" + bytes(300),
        "c.jxl": b"\xff\x0a" + bytes(range(100)),
        "d.jxl": b"\x00\x00\x00\x0cJXL \r\n\x87\n" + bytes(100),
        "e.nii": nifti,
        "f": analyze,
        "g.mha": b"ObjectType = Image\nNDims = 2\nBinaryData = True\n" + bytes(300),
        "h.mhd": b"Comment = none\nNDims = 2\nDimSize = 9 9\nElementDataFile = h.raw\n",
        "i.nrrd": b"NRRD0004\ntype: short\n\n" + bytes(300),
        "j.pgm": b"P5\n# drawn\n90 120\n255\n" + picture().tobytes(),
        "k.psd": b"8BPS\x00\x01" + bytes(300),
    }


def test_picture_of_a_format_that_is_not_read_is_a_row_that_says_which(tmp_path):
    for name, data in unread_files().items():
        (tmp_path / name).write_bytes(data)
        rejection = read_image(data, SIDE).rejection
        assert rejection is not None
        assert rejection.reason == "unsupported", name
        assert rejection.detail.endswith("a format that is not read"), name
    (tmp_path / "l.txt").write_bytes(b"P5 3 films")
    (tmp_path / "notes").write_bytes(b"P1 is the first patient, 2 films")
    listed = {image.uri.rpartition("/")[2] for image in list_archive(f"file://{tmp_path}", Counter())}
    assert listed == set(unread_files())


def test_medical_files_whose_content_does_not_tell_are_warnings_of_their_own_kind(tmp_path):
    for name in ("lungs.raw", "JSRT.IMG", "brain.nii.gz", "a.mha.gz", "b.zraw"):
        (tmp_path / name).write_bytes(bytes(range(256)) * 4)
    (tmp_path / "film.raw").write_bytes(JPEG)
    (tmp_path / "notes.gz").write_bytes(bytes(range(256)))
    archives = [tmp_path]
    with zipfile.ZipFile(tmp_path.parent / "medical.zip", "w") as packed:
        for path in sorted(tmp_path.iterdir()):
            packed.write(path, path.name)
    archives.append(tmp_path.parent / "medical.zip")
    for archive in archives:
        skipped: Counter[SkipReason] = Counter()
        listed = [image.uri.rpartition("/")[2] for image in list_archive(f"file://{archive}", skipped)]
        assert listed == ["film.raw"]
        assert may_hide_images(skipped) == {"medical_format": 5, "other_compression": 1}


@pytest.mark.parametrize(
    "exif",
    [
        bytes(200),
        b" " * 60,
        b"X" * 500,
        b"",
        b"II*\0",
        b"MM\0*\0\0\xff\xff" + bytes(40),
        b"II*\0\x08\0\0\0\xff\xff" + bytes(30),
    ],
)
def test_exif_that_is_blanked_or_broken_leaves_the_picture_upright(exif):
    assert difference(jpeg_with(b"Exif\0\0" + exif)) <= 3
    png = encoded(GREY, "PNG")
    assert difference(png[:33] + chunk(b"eXIf", exif) + png[33:]) <= 1
    assert difference(encoded(GREY, "WEBP", lossless=True, exif=b"Exif\0\0" + exif)) <= 1


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_orientation_that_is_none_is_upright(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert difference(encoded(GREY, "JPEG", quality=95, exif=exif)) <= 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_applied_in_every_format_that_has_it(orientation):
    turn = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}.get(orientation)
    inverse = {None: None, 0: 0, 1: 1, 2: 4, 3: 3, 4: 2, 5: 5, 6: 6}[turn]
    stored = GREY if inverse is None else GREY.transpose(Image.Transpose(inverse))
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name, options in (("JPEG", {"quality": 95}), ("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True})):
        assert difference(encoded(stored, name, exif=exif, **options)) <= 3, name


@pytest.mark.parametrize(
    "clutter",
    [
        chunk(b"zTXt", b"Description\0\0" + zlib.compress(b" " * 3_000_000)),
        chunk(b"tEXt", b"Comment\0" + b"x" * 2_000_000),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"<x/>" * 600_000)),
        chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(4_000_000))),
        chunk(b"iCCP", b"profile\0\0no zlib stream"),
        chunk(b"tEXt", b"Comment\0kept")[:-1] + b"?",
        chunk(b"prVt", bytes(100))[:-4] + bytes(4),
        chunk(b"zTXt", b"Software\0\0" + zlib.compress(b" " * 1_000_000)) * 100,
    ],
)
def test_what_other_programs_have_added_to_a_png_does_not_reject_it(clutter):
    png = encoded(GREY, "PNG")
    assert difference(png[:33] + clutter + png[33:]) <= 1
    # Behind the pixels.
    assert difference(png[:-12] + clutter + png[-12:]) <= 1


def test_cut_png_with_clutter_is_truncated():
    png = encoded(GREY, "PNG")
    cluttered = png[:33] + chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(4_000_000))) + png[33:]
    assert reason_of(cluttered[: len(cluttered) * 3 // 4]) == "truncated"


def test_jpeg_with_a_preview_or_a_gain_map_beside_it_is_scored_by_its_first_picture():
    preview = GREY.resize((30, 40))
    assert difference(encoded(GREY, "MPO", quality=95, save_all=True, append_images=[preview])) <= 3
    # As phones append them, and a damaged index of pictures.
    assert difference(JPEG + encoded(preview, "JPEG")) <= 3
    assert difference(jpeg_with(b"MPF\0II*\0" + b"\xff" * 60, 0xE2) + encoded(preview, "JPEG")) <= 3


@pytest.mark.parametrize(
    ("marker", "segment"),
    [
        (0xE0, b"JFIF\0" + bytes(2)),
        (0xE2, b"ICC_PROFILE\0\1"),
        (0xED, b"Photoshop 3.0\0" + b"8BIM" * 9),
        (0xE2, b""),
    ],
)
def test_broken_segments_of_other_programs_do_not_reject_a_jpeg(marker, segment):
    assert difference(jpeg_with(segment, marker)) <= 3


def test_tiff_whose_other_directories_are_broken_is_scored():
    assert difference(tiff_file(picture()[..., None], tag34665=60_000)) <= 1
    data = tiff_file(picture()[..., None])
    (count,) = struct.unpack_from("<H", data, 8)
    next_page = 10 + 12 * count
    for nowhere in (12, 999_999, len(data) - 3):
        assert difference(data[:next_page] + struct.pack("<I", nowhere) + data[next_page + 4 :]) <= 1


def tiff_pages(*pages: Image.Image, kinds: tuple[int, ...]) -> bytes:
    """A TIFF of several pages; kind 0 is one with no tag for it."""
    file = io.BytesIO()
    infos = [{254: kind} if kind else {} for kind in kinds]
    with TiffImagePlugin.AppendingTiffWriter(file) as writer:
        for page, info in zip(pages, infos, strict=True):
            page.save(writer, "TIFF", tiffinfo=info)
            writer.newFrame()
    return file.getvalue()


def test_tiff_with_a_thumbnail_or_a_mask_is_scored_by_its_picture():
    thumbnail, mask = GREY.resize((22, 30)), Image.new("L", GREY.size, 255)
    assert difference(tiff_pages(GREY, thumbnail, kinds=(0, 1))) <= 1
    assert difference(tiff_pages(thumbnail, GREY, kinds=(1, 0))) <= 1
    assert difference(tiff_pages(GREY, thumbnail, kinds=(0, 0))) <= 1
    assert difference(tiff_pages(thumbnail, GREY, kinds=(0, 0))) <= 1
    assert difference(tiff_pages(GREY, mask, kinds=(0, 4))) <= 1
    source = read_image(tiff_pages(thumbnail, GREY, kinds=(1, 0)), SIDE).source
    assert (source.width, source.height) == GREY.size
    assert reason_of(tiff_pages(GREY, GREY.rotate(180), kinds=(0, 0))) == "multi_frame"
    assert reason_of(tiff_pages(GREY, GREY.resize((80, 50)), kinds=(0, 0))) == "multi_frame"


def test_tiff_is_read_with_every_header():
    little, big = tiff_file(picture()[..., None]), tiff_file(picture()[..., None], order=">")
    deflated = tiff_file(picture()[..., None], deflated=True)
    for data in (little, big, deflated, encoded(GREY, "TIFF", big_tiff=True)):
        assert difference(data) <= 1
    for data in (little, deflated):
        assert difference(b"II\0*" + data[4:]) <= 1
    assert difference(b"MM*\0" + big[4:]) <= 1


def test_jpeg_of_12_bits_alone_is_unsupported():
    frame = JPEG.index(b"\xff\xc0")
    for marker in (b"\xff\xc0", b"\xff\xc1"):
        data = JPEG[:frame] + marker + JPEG[frame + 2 : frame + 4] + b"\x0c" + JPEG[frame + 5 :]
        rejection = read_image(data, SIDE).rejection
        assert rejection is not None
        assert (rejection.reason, rejection.detail) == ("unsupported", "JPEG of 12 bits for each sample")


@pytest.mark.parametrize("before", [b"", b"\x00", b"\xff", b"\xda"])
@pytest.mark.parametrize("after", [b"", b"\x00", b"\xff", b"\xda\xff"])
def test_scans_are_counted_wherever_they_begin(before, after):
    scan = b"\xff\xda"
    for data in (b"", scan, scan + scan, scan + b"\x01" + scan, b"\xff" + scan, b"\xda" + scan, JPEG):
        data = before + data + after
        assert count_scans(data) == data.count(scan)


@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_of_many_reads_gives_the_square_that_pillow_alone_gives(progressive):
    # More than the 64 KiB that Pillow reads at once.
    noisy = Image.fromarray(np.random.default_rng(0).integers(0, 256, (900, 800), np.uint8))
    data = encoded(noisy, "JPEG", quality=90, progressive=progressive)
    assert len(data) > 3 * 2**16
    plain = Image.open(io.BytesIO(data))
    plain.draft("L", (2 * SIDE, 2 * SIDE))
    file = io.BytesIO()
    plain.resize((SIDE, SIDE), Image.Resampling.BILINEAR).save(file, "JPEG", quality=75)
    assert np.array_equal(decode(data, SIDE), np.asarray(Image.open(file)))

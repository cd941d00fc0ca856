"""How files are packed: known by content whatever their name, inflated whatever their frames."""

import bz2
import gzip
import io
import lzma
import os
import struct
import tarfile
import zlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.images.archived import contents, jpeg, listing, mutations, pictures, tar_bytes, zip_bytes

from pneumonia_core.archives.archive import open_archive
from pneumonia_core.archives.classify import NameClass, classify_head, classify_path
from pneumonia_core.archives.skipped import SkipReason, may_hide_images
from pneumonia_core.errors import InvalidInput

FILES = pictures(3)
TAR = tar_bytes(FILES)


def zstd(data: bytes) -> bytes:
    """A frame as programs in a pipe write it, which do not know its size."""
    buffer = pa.BufferOutputStream()
    with pa.CompressedOutputStream(buffer, "zstd") as stream:
        stream.write(data)
    return buffer.getvalue().to_pybytes()


def wide(frame: bytes) -> bytes:
    """The frame as `zstd --long=31` declares it: with a window of 2 GiB."""
    assert not frame[4] & 0x20
    return frame[:5] + bytes(((31 - 10) << 3,)) + frame[6:]


SKIPPABLE = b"\x5e\x2a\x4d\x18" + struct.pack("<I", 5) + b"notes"
SMALL = zstd(TAR[:9000])
PACKED = {
    "gz": gzip.compress(TAR),
    "gz in members": gzip.compress(TAR[:1000]) + gzip.compress(TAR[1000:]) + bytes(512),
    "bz2": bz2.compress(TAR),
    "bz2 in streams": bz2.compress(TAR[:1000]) + bz2.compress(TAR[1000:]),
    "xz": lzma.compress(TAR),
    "xz in streams": lzma.compress(TAR[:1000]) + bytes(8) + lzma.compress(TAR[1000:], preset=9),
    "zst": pa.Codec("zstd").compress(TAR, asbytes=True),
    "zst of any window": wide(zstd(TAR)),
    "zst in frames": SKIPPABLE + SMALL + SKIPPABLE + wide(zstd(TAR[9000:])) + SKIPPABLE,
    "tar": TAR,
    "tars": tar_bytes(dict([*FILES.items()][:1])) + tar_bytes(dict([*FILES.items()][1:])),
    "zip": zip_bytes(FILES),
}


@pytest.mark.parametrize("name", ["a.tar.gz", "a.zip", "a.txz", "study-4711", "export.2026", "a.gz"])
@pytest.mark.parametrize("packing", PACKED)
def test_archive_is_opened_by_its_content(tmp_path, packing, name):
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / name
    path.write_bytes(PACKED[packing])
    for named in (path, tmp_path / "in"):
        images, skipped = listing(named)
        assert contents(images) == {f"file://{path}!/{member}": data for member, data in FILES.items()}
        assert not skipped


@pytest.mark.parametrize("packing", [packing for packing in PACKED if packing not in ("tar", "tars", "zip")])
def test_compressed_tar_that_is_cut_or_damaged_gives_what_is_before_and_is_counted(tmp_path, packing):
    path = tmp_path / "a.tar.gz"
    whole = PACKED[packing]
    for data in (whole[: len(whole) - len(whole) // 3], whole[:-700] + bytes(100) + whole[-600:]):
        path.write_bytes(data)
        images, skipped = listing(path)
        assert set(may_hide_images(skipped)) <= {"truncated_archive", "damaged_archive"}
        assert skipped or len(images) == len(FILES)
        assert len(contents(images)) == len(images)


def test_frame_that_looks_back_further_than_the_library_can_is_no_guess(tmp_path, monkeypatch):
    monkeypatch.setattr("pneumonia_core.archives.packing.zstd_frames._MAX_WINDOW_BYTES", 3000)
    (tmp_path / "a.tar.zst").write_bytes(wide(zstd(TAR)))
    images, skipped = listing(tmp_path / "a.tar.zst")
    assert (len(images), dict(skipped)) == (1, {"unopened_archive": 1})
    assert list(contents(images).values()) == ["unsupported"]
    (tmp_path / "a.tar.zst").write_bytes(zstd(TAR))
    assert len(listing(tmp_path / "a.tar.zst")[0]) == len(FILES)


def test_picture_that_is_called_an_archive_is_a_picture(tmp_path):
    for name in ("x.zip", "y.tar.gz", "z.gz"):
        (tmp_path / name).write_bytes(jpeg(1))
    images, skipped = listing(tmp_path)
    assert (len(images), dict(skipped)) == (3, {})
    assert set(contents(images).values()) == {jpeg(1)}


UNOPENED = {
    "a.7z": b"7z\xbc\xaf\x27\x1c" + bytes(30),
    "b": b"Rar!\x1a\x07\x01\x00" + bytes(30),
    "c.tar.Z": b"\x1f\x9d\x90" + bytes(30),
    "d": b"\x04\x22\x4d\x18" + bytes(30),
    "e.img.lz": b"LZIP\x01" + bytes(30),
    "f.dcm.gz": gzip.compress(jpeg(1)),
    "g": lzma.compress(jpeg(1)),
    "h.zst": pa.Codec("zstd").compress(b"text", asbytes=True),
    "i.zip": b"7z\xbc\xaf\x27\x1c" + bytes(30),
    "j.lzma": bytes(40),
}
PARTS = ["a.tar.ab", "a.tar.gz.ac", "a.zip.002", "a.7z.0003", "a.z02", "a.r00", "b.tgz.bb", "a.tar.aab"]


def parquet(column: pa.Array) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"image": column, "label": [0]}), buffer)
    return buffer.getvalue()


def arrow_stream(column: pa.Array) -> bytes:
    table, buffer = pa.table({"label": [0], "image": column}), io.BytesIO()
    with pa.ipc.new_stream(buffer, table.schema) as writer:
        writer.write_table(table)
    return buffer.getvalue()


def tfrecord(data: bytes) -> bytes:
    return struct.pack("<QI", len(data) + 9, 7) + b"\x0a\x05image" + data + bytes(4)


IMAGES = pa.array([{"bytes": jpeg(1), "path": "x.jpeg"}])
PACKED_IMAGES = {
    "train-00000-of-00001.parquet": parquet(IMAGES),
    "large.parquet": parquet(pa.array([[jpeg(1)]], pa.list_(pa.large_binary()))),
    "cut.parquet": parquet(IMAGES)[:-20],
    "data-00000-of-00001.arrow": arrow_stream(IMAGES),
    "00f7fd8b-47bd8c3a-ff917804-d180cdbc-40cf9527": struct.pack("<Q", 900) + zlib.compress(jpeg(1)),
    "6b": struct.pack("<Q", 900) + zlib.compress(bytes(128) + b"DICM" + bytes(700), 1),
    "train-00000-of-00008": tfrecord(jpeg(1)),
    "data.mdb": bytes(16) + b"\xde\xc0\xef\xbe" + bytes(500),
    "pneumoniamnist.npy": b"\x93NUMPY" + bytes(500),
    "cxr.h5": b"\x89HDF\r\n\x1a\n" + bytes(500),
}
NO_IMAGES = {
    "labels.parquet": parquet(pa.array(["x"])),
    "labels.arrow": arrow_stream(pa.array(["x"])),
    "a1b2": struct.pack("<Q", 2) + zlib.compress(b"{}"),
    "numbers": os.urandom(600).replace(b"\xff", b"").replace(b"PK", b""),
    "notes.csv.gz": gzip.compress(b"a,b"),
}


@pytest.mark.parametrize(
    ("files", "skipped"),
    [
        (UNOPENED, {"other_compression": len(UNOPENED)}),
        (dict.fromkeys(PARTS, os.urandom(9) + bytes(600)), {"part_of_archive": len(PARTS)}),
        (PACKED_IMAGES, {"packed_images": len(PACKED_IMAGES)}),
        (NO_IMAGES, {"no_image": len(NO_IMAGES)}),
    ],
)
def test_what_may_hold_images_and_is_not_opened_is_counted_for_itself(tmp_path, files, skipped):
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    assert listing(tmp_path) == ([], skipped)


def test_archive_and_records_in_an_archive_are_counted_whatever_their_names(tmp_path):
    inner = {"study": TAR, "inner.v2": zip_bytes(FILES), "b": gzip.compress(TAR)}
    records = {"6b": PACKED_IMAGES["6b"], "train-0": tfrecord(jpeg(1)), "x.npy": b"\x93NUMPY" + bytes(50)}
    for path, data in {"a.zip": zip_bytes(inner | records), "b.tar": tar_bytes(inner | records)}.items():
        (tmp_path / path).write_bytes(data)
        skipped = {"nested_archive": 2, "other_compression": 1, "packed_images": 3}
        assert listing(tmp_path / path) == ([], skipped)


REFUSED = {
    **dict.fromkeys(("a.7z", "scan.dcm.gz", "x.rar"), "files packed in this way are not opened. Unpack it"),
    **dict.fromkeys(("a.tar.aa", "a.zip.001", "a.z01"), "Join the parts in their order"),
    **dict.fromkeys(("a.csv.gz", "a.tsv", "a.jsonl", "a.xlsx", "notes"), "neither an image nor an archive"),
    "a.nii.gz": "its format is not read",
    "a.h5": "records or arrays",
}


@pytest.mark.parametrize("name", REFUSED)
def test_file_that_is_no_archive_is_refused_with_what_to_do(tmp_path, name):
    data = {"a.xlsx": zip_bytes({"xl/media/x.jpeg": jpeg(1)}), "x.rar": UNOPENED["b"], "a.tar.aa": TAR[:5000]}
    (tmp_path / name).write_bytes(data.get(name, b"text"))
    with pytest.raises(InvalidInput, match=REFUSED[name]):
        open_archive(str(tmp_path / name))


@pytest.mark.parametrize("name", ["x.txt", ".x", "thorax", "x.csv.gz"])
def test_picture_of_any_name_may_be_the_archive(tmp_path, name):
    (tmp_path / name).write_bytes(jpeg(1))
    images, _ = listing(tmp_path / name)
    assert list(contents(images).values()) == [jpeg(1)]


SYSTEM = [
    *(
        "@eaDir/x.jpeg/SYNOPHOTO_THUMB_M.jpg",
        "@Recycle/x.jpeg",
        "#recycle/a/x.jpeg",
        "$RECYCLE.BIN/S-1/x.jpeg",
    ),
    *(
        "@Recently-Snapshot/x.jpeg",
        "#snapshot/x.jpeg",
        "~snapshot/x.jpeg",
        "System Volume Information/x.jpeg",
    ),
    *("RECYCLER/S-1/x.jpeg", "Network Trash Folder/x.jpeg", "anna/files_trashbin/files/x.jpeg.d1"),
]
HIDDEN = [".Trash-1000/files/x.jpeg", ".Trashes/501/x.jpeg", ".@__thumb/x.jpeg", ".snapshot/n/x.jpeg"]
TAKEN = ["recycled paper/x.jpeg", "eaDir/x.jpeg", "recycle/x.jpeg", "snapshot/x.jpeg", "@home/x.jpeg"]


@pytest.mark.parametrize("kind", ["folder", "a.tar", "a.zip", "windows.zip"])
def test_thumbnails_recycle_bins_and_snapshots_are_left_out_and_counted(tmp_path, kind):
    files = dict.fromkeys([*SYSTEM, *HIDDEN, *TAKEN], jpeg(1))
    path = tmp_path / kind
    if kind == "folder":
        for name, data in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
    elif kind == "a.tar":
        path.write_bytes(tar_bytes(files))
    else:
        slash = "\\" if kind == "windows.zip" else "/"
        path.write_bytes(zip_bytes({name.replace("/", slash): data for name, data in files.items()}))
    images, skipped = listing(path)
    assert len(images) == len(TAKEN)
    assert skipped == {"system_folder": len(SYSTEM), "hidden": len(HIDDEN)}
    assert not may_hide_images(skipped)


def test_tar_whose_first_name_begins_as_a_picture_does_is_a_tar():
    assert classify_head(tar_bytes({"BM.jpeg": jpeg(1)})[:512], "study") is NameClass.ARCHIVE
    assert classify_head(tar_bytes({"x": b"y"}, tarfile.USTAR_FORMAT)[:512], "II*") is NameClass.ARCHIVE


def test_suffixes_that_promise_images_elsewhere_are_kept_apart():
    kinds = {path: classify_head(b"text", path) for path in ("a.mat", "a.z01", "a.iso", "a.raw", "a.v2")}
    assert kinds == {
        "a.mat": SkipReason.PACKED_IMAGES,
        "a.z01": SkipReason.PART_OF_ARCHIVE,
        "a.iso": SkipReason.OTHER_COMPRESSION,
        "a.raw": SkipReason.MEDICAL_FORMAT,
        "a.v2": SkipReason.NO_IMAGE,
    }
    assert classify_path("a.nii.gz") is SkipReason.MEDICAL_FORMAT


MUTATED = {**PACKED, **PACKED_IMAGES}


def fuzz(folder, kind: str, changes, cut: int | None) -> None:
    data = bytearray(MUTATED[kind])
    for at, value in changes:
        # The first bytes more often than others: they tell how a file is packed.
        data[(at % 64 if at % 2 else at) % len(data)] = value
    (folder / "mutated").mkdir(exist_ok=True)
    (folder / "mutated" / "study").write_bytes(bytes(data if cut is None else data[: cut % len(data)]))
    images, _ = listing(folder / "mutated")
    assert len({image.uri for image in images}) == len(images)
    assert all(isinstance(held, bytes | str) for held in contents(images).values())


@settings(max_examples=60, deadline=2000)
@given(kind=st.sampled_from([*MUTATED]), changes=mutations, cut=st.none() | st.integers(1, 2**20))
def test_mutated_packings_give_images_or_reasons(tmp_path_factory, kind, changes, cut):
    fuzz(tmp_path_factory.getbasetemp(), kind, changes, cut)


@pytest.mark.soak
@settings(max_examples=60_000, deadline=2000)
@given(kind=st.sampled_from([*MUTATED]), changes=mutations, cut=st.none() | st.integers(1, 2**20))
def test_soak_of_mutated_packings(tmp_path_factory, kind, changes, cut):
    fuzz(tmp_path_factory.getbasetemp(), kind, changes, cut)

"""Archives made by the tests, from the same small pictures."""

import gzip
import io
import struct
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st
from PIL import Image

from pneumonia_core.archives.archive import fetched_bytes, list_archive, open_archive
from pneumonia_core.archives.containers.compressed_tar import with_streamed_members
from pneumonia_core.archives.entries import ImageRef, ListedImage, image_refs, source_values
from pneumonia_core.archives.manifests import ListingRules
from pneumonia_core.errors import RejectedImage
from pneumonia_core.runs.inventory import CHUNK_SCHEMA


def jpeg(seed: int, side: int = 64) -> bytes:
    """A small picture, a different one for each seed."""
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def pictures(count: int) -> dict[str, bytes]:
    return {f"ward {number % 3}/xr_{number:04d}.jpeg": jpeg(number) for number in range(count)}


def tar_bytes(files: dict[str, bytes] | list[tuple[str, bytes]], kind: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as tar:
        for name, data in files.items() if isinstance(files, dict) else files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def zip_bytes(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return buffer.getvalue()


def write_kinds(folder: Path, files: dict[str, bytes]) -> dict[str, Path]:
    """The same files as a folder and as each kind of archive."""
    plain = folder / "folder"
    for name, data in files.items():
        (plain / name).parent.mkdir(parents=True, exist_ok=True)
        (plain / name).write_bytes(data)
    tar = tar_bytes(files)
    written = {
        "a.tar": tar,
        "a.tar.gz": gzip.compress(tar),
        "a.tar.zst": pa.Codec("zstd").compress(tar, asbytes=True),
        "a.zip": zip_bytes(files),
    }
    for name, data in written.items():
        (folder / name).write_bytes(data)
    return {"folder": plain, **{name: folder / name for name in written}}


def listing(archive: object, rules: ListingRules | None = None) -> tuple[list[ListedImage], Counter[str]]:
    skipped: Counter[str] = Counter()
    rules = rules or ListingRules()
    return list(list_archive(open_archive(str(archive), rules), skipped, rules)), skipped


def contents(images: list[ListedImage]) -> dict[str, bytes | str]:
    """What each listed image holds, or the reason why it cannot be read."""
    read: dict[str, bytes | str] = {}
    for image in with_streamed_members(map(request, images)):
        try:
            read[image.ref.uri] = fetched_bytes(image)
        except RejectedImage as rejected:
            read[image.ref.uri] = rejected.reason
    return read


def request(image: ListedImage) -> ImageRef:
    """The request to read a listed image."""
    return ImageRef(image.uri, image.source, image.size_bytes, image.version)


def through_the_inventory(images: list[ListedImage]) -> list[ImageRef]:
    """What a run reads of its inventory."""
    names = CHUNK_SCHEMA.names
    rows = [
        (row, image.uri, image.version, image.size_bytes, "file:///a", 1, *source_values(image.source), None)
        for row, image in enumerate(images)
    ]
    return image_refs(
        pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows], CHUNK_SCHEMA)
    )


def set_encrypted(data: bytes) -> bytes:
    """A zip whose members all say that they are encrypted."""
    changed = bytearray(data)
    for magic, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = changed.find(magic)
        while start >= 0:
            (flags,) = struct.unpack_from("<H", changed, start + at)
            struct.pack_into("<H", changed, start + at, flags | 1)
            start = changed.find(magic, start + 4)
    return bytes(changed)


mutations = st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), max_size=6)

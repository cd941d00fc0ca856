"""Zips as Finder, 7-Zip, Info-ZIP, Windows and others write, split and join them."""

import io
import struct
import zipfile
import zlib
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.images.archived import contents, jpeg, listing, mutations, zip_bytes

UTF8, FOLLOWS = 0x800, 0x8
LARGE = 2**32 + 5_000


@dataclass(frozen=True)
class Stored:
    """A stored member, as a program writes it."""

    name: bytes
    data: bytes = b""
    flags: int = 0
    extra: bytes = b""
    made_by: int = 20
    attributes: int = 0

    @property
    def local(self) -> bytes:
        follows = bool(self.flags & FOLLOWS)
        crc, size = (0, 0) if follows else (zlib.crc32(self.data), len(self.data))
        fields = (20, self.flags, 0, 0, 0, crc, size, size, len(self.name), len(self.extra))
        head = b"PK\x03\x04" + struct.pack("<5H3L2H", *fields) + self.name + self.extra
        tail = b"PK\x07\x08" + struct.pack("<3L", zlib.crc32(self.data), len(self.data), len(self.data))
        return head + self.data + (tail if follows else b"")

    def central(self, offset: int, disk: int = 0, size: int | None = None) -> bytes:
        size = len(self.data) if size is None else size
        crc, sizes = zlib.crc32(self.data), (size % 2**32, size % 2**32)
        fields = (self.made_by, 20, self.flags, 0, 0, 0, crc, *sizes, len(self.name), len(self.extra))
        rest = struct.pack("<3H2L", 0, disk, 0, self.attributes, offset % 2**32)
        return b"PK\x01\x02" + struct.pack("<6H3L2H", *fields) + rest + self.name + self.extra


def end(count: int, length: int, offset: int, disk: int = 0, comment: bytes = b"") -> bytes:
    fields = (disk, disk, count, count, length, offset % 2**32, len(comment))
    return b"PK\x05\x06" + struct.pack("<4H2LH", *fields) + comment


def zip_of(*members: Stored, between: bytes = b"", comment: bytes = b"") -> bytes:
    data, directory = b"", b""
    for member in members:
        directory += member.central(len(data))
        data += member.local
    return data + directory + between + end(len(members), len(directory), len(data), comment=comment)


def read(path, data: bytes | None = None) -> tuple[dict[str, bytes | str], dict[str, int]]:
    """What the members of a zip hold, and what was skipped."""
    if data is not None:
        path.write_bytes(data)
    images, skipped = listing(path)
    return {uri.partition("!/")[2]: held for uri, held in contents(images).items()}, dict(skipped)


ONE, TWO, THREE = (zip_bytes({f"{number}.jpeg": jpeg(number)}) for number in (1, 2, 3))
CUT = zip_bytes({"1.jpeg": jpeg(1), "x.jpeg": jpeg(9)})


@pytest.mark.parametrize(
    ("data", "numbers", "skipped"),
    [
        (ONE + TWO, (1, 2), {}),
        (ONE + TWO + THREE, (1, 2, 3), {}),
        (b"#!/bin/sh\n" + ONE, (1,), {}),
        (b"MZ" + bytes(600) + ONE + THREE, (1, 3), {}),
        (zip_of() + TWO, (2,), {}),
        (zip_of(Stored(b"1.jpeg", jpeg(1)), comment=b"by a scanner") + TWO, (1, 2), {}),
        (ONE + bytes(2000), (1,), {}),
        (CUT[: CUT.find(b"PK\x01\x02")] + TWO, (1, 9, 2), {"truncated_archive": 1}),
    ],
)
def test_all_zips_of_a_file_are_listed(tmp_path, data, numbers, skipped):
    found, counted = read(tmp_path / "a.zip", data)
    assert list(found.values()) == [jpeg(number) for number in numbers]
    assert counted == skipped


@pytest.mark.parametrize(
    "data",
    [
        zip_of(Stored(b"1.jpeg", jpeg(1)), between=b"signature of the directory"),
        zip_of(Stored(b"1.jpeg", jpeg(1)), comment=b"PK\x05\x06" + bytes(30)),
        zip_of(Stored(b"1.jpeg", jpeg(1), flags=FOLLOWS), comment=b"PK\x05\x06" * 5),
        b"PK00" + zip_of(Stored(b"1.jpeg", jpeg(1))),
    ],
)
def test_directory_is_found_whatever_stands_beside_it(tmp_path, data):
    assert read(tmp_path / "a.zip", data) == ({"1.jpeg": jpeg(1)}, {})


def test_end_of_64_bits_is_found_behind_a_program_that_unpacks(tmp_path):
    member = Stored(b"1.jpeg", jpeg(1))
    directory = member.central(0)
    end64 = struct.pack(
        "<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, len(directory), len(member.local)
    )
    at = len(member.local) + len(directory)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, at, 1)
    whole = member.local + directory + end64 + locator + end(0xFFFF, 2**32 - 1, 2**32 - 1, 0)
    for before in (b"", b"MZ" + bytes(1000)):
        assert read(tmp_path / "a.zip", before + whole) == ({"1.jpeg": jpeg(1)}, {})


def in_parts(flags: int, sizes: tuple[int, ...], mark: bytes = b"PK\x07\x08") -> list[bytes]:
    """A zip in parts, each of so many members; offsets count from the beginning of their part."""
    parts, directory = [], b""
    members = iter([Stored(b"%d.jpeg" % number, jpeg(number), flags) for number in range(sum(sizes))])
    for disk, count in enumerate(sizes):
        part = mark if disk == 0 else b""
        for _ in range(count):
            member = next(members)
            directory += member.central(len(part), disk)
            part += member.local
        parts.append(part)
    disk = len(parts) - 1
    parts[-1] += directory + end(sum(sizes), len(directory), len(parts[-1]), disk)
    return parts


@pytest.mark.parametrize("flags", [0, FOLLOWS])
@pytest.mark.parametrize("sizes", [(1, 2), (2, 1, 3), (3, 0, 1)])
@pytest.mark.parametrize("mark", [b"PK\x07\x08", b""])
def test_parts_that_were_joined_are_one_zip(tmp_path, flags, sizes, mark):
    found, skipped = read(tmp_path / "a.zip", b"".join(in_parts(flags, sizes, mark)))
    assert found == {f"{number}.jpeg": jpeg(number) for number in range(sum(sizes))}
    assert not skipped


def test_joined_parts_of_which_the_first_is_missing_give_no_row_with_the_bytes_of_another(tmp_path):
    for missing in (1, 2):
        found, skipped = read(tmp_path / "a.zip", b"".join(in_parts(0, (1, 2, 1, 1))[missing:]))
        assert set(found.values()) <= {jpeg(number) for number in range(5)}
        assert skipped == {"part_of_archive": 1}


def test_parts_beside_each_other_give_what_they_hold_and_are_counted(tmp_path):
    for number, part in enumerate(in_parts(0, (2, 2, 1)), 1):
        (tmp_path / ("a.zip" if number == 3 else f"a.z{number:02d}")).write_bytes(part)
    images, skipped = listing(tmp_path)
    assert sorted(contents(images).values()) == sorted(jpeg(number) for number in range(5))
    assert skipped == {"part_of_archive": 1, "truncated_archive": 2}
    # The second part began with a member by chance.
    (tmp_path / "a.z02").write_bytes(b"rest of a member" + in_parts(0, (2, 2, 1))[1])
    images, skipped = listing(tmp_path)
    assert skipped == {"part_of_archive": 2, "truncated_archive": 1}
    assert {"0.jpeg", "1.jpeg", "4.jpeg"} == {image.uri.rpartition("/")[2] for image in images}
    assert all(isinstance(data, bytes) for data in contents(images).values())


@pytest.mark.parametrize(
    "films",
    [(LARGE,), (3 * 2**30, 3 * 2**30), (2 * LARGE + 2**31, 100), (3 * 2**30,) * 5, (100, LARGE, LARGE)],
)
def test_zip_of_finder_beyond_4_gib_is_read(tmp_path, films):
    """Archive Utility keeps 32 bits of sizes and offsets, and says nothing of the others."""
    path, directory = tmp_path / "a.zip", b""
    with path.open("wb") as file:
        for number, size in enumerate((0, *films)):
            picture = Stored(b"%d.jpeg" % number, jpeg(number), FOLLOWS)
            film = Stored(b"%d.mp4" % number)
            directory += film.central(file.tell(), size=size)
            file.write(film.local)
            file.seek(size, io.SEEK_CUR)
            directory += picture.central(file.tell())
            file.write(picture.local)
        at = file.tell()
        file.write(directory + end(2 * len(films) + 2, len(directory), at))
    found, skipped = read(path)
    assert found == {f"{number}.jpeg": jpeg(number) for number in range(len(films) + 1)}
    assert skipped == {"no_image": len(films) + 1}
    path.unlink()


def unicode_path(name: str, of: bytes, version: int = 1) -> bytes:
    field = bytes((version,)) + struct.pack("<L", zlib.crc32(of)) + name.encode()
    return struct.pack("<HH", 0x5455, 1) + b"\0" + struct.pack("<HH", 0x7075, len(field)) + field


DOS = "Thorax für Ärzte.jpeg".encode("cp437")


@pytest.mark.parametrize(
    ("member", "name"),
    [
        (Stored(DOS), "Thorax für Ärzte.jpeg"),
        (Stored("ü.jpeg".encode()), "ü.jpeg"),
        (Stored("胸.jpeg".encode(), flags=UTF8), "胸.jpeg"),
        (Stored(b"\xff.jpeg", flags=UTF8), "\\xff.jpeg"),
        (Stored(b"?.jpeg", extra=unicode_path("胸部.jpeg", b"?.jpeg")), "胸部.jpeg"),
        (Stored(DOS, extra=unicode_path("Грудь.jpeg", DOS)), "Грудь.jpeg"),
        # A program that knows no such fields has renamed the member.
        (Stored(b"new.jpeg", extra=unicode_path("old.jpeg", b"old.jpeg")), "new.jpeg"),
        (Stored(b"x.jpeg", extra=unicode_path("of a later version", b"x.jpeg", 2)), "x.jpeg"),
        (Stored(b"x.jpeg", extra=b"\x75\x70\xff\xff\x01"), "x.jpeg"),
        (Stored(b"a\\b\\x.jpeg"), "a\\b\\x.jpeg"),
    ],
)
@pytest.mark.parametrize("is_cut", [False, True])
def test_name_is_read_by_every_rule_of_the_format(tmp_path, member, name, is_cut):
    member = Stored(member.name, jpeg(1), member.flags, member.extra)
    found, skipped = read(tmp_path / "a.zip", member.local if is_cut else zip_of(member))
    assert found == {name: jpeg(1)}
    assert skipped == ({"truncated_archive": 1} if is_cut else {})


def test_folders_of_windows_and_links_of_unix_give_no_rows(tmp_path):
    members = [
        Stored(b"train\\"),
        Stored(b"train/"),
        Stored(b"folder.jpeg", attributes=0x10),
        Stored(b"train\\link.jpeg", b"x.jpeg", made_by=3 << 8 | 20, attributes=0o120777 << 16),
        Stored(b"train\\x.jpeg", jpeg(1), made_by=3 << 8 | 20, attributes=0o100644 << 16),
        Stored(b"__MACOSX\\x.jpeg", jpeg(2)),
        Stored(b"a/.hidden\\b/x.jpeg", jpeg(3)),
    ]
    expected = {"train\\x.jpeg": jpeg(1)}, {"link_in_archive": 1, "hidden": 2}
    assert read(tmp_path / "a.zip", zip_of(*members)) == expected


WHOLE = {
    "joined": ONE + TWO + THREE,
    "in parts": b"".join(in_parts(FOLLOWS, (1, 2, 1))),
    "one part": in_parts(0, (1, 2, 1))[-1],
    "names": zip_of(*(Stored(b"%d" % n, jpeg(n, 16), extra=unicode_path("ü", b"%d" % n)) for n in range(3))),
}


def fuzz(folder, kind: str, changes, cut: int | None) -> None:
    data = bytearray(WHOLE[kind])
    for at, value in changes:
        data[at % len(data)] = value
    path = folder / "a.zip"
    path.write_bytes(bytes(data if cut is None else data[: cut % len(data)]))
    images, _ = listing(path)
    assert len({image.uri for image in images}) == len(images)
    assert all(isinstance(held, bytes | str) for held in contents(images).values())


@settings(max_examples=40, deadline=2000)
@given(kind=st.sampled_from([*WHOLE]), changes=mutations, cut=st.none() | st.integers(1, 2**20))
def test_mutated_unusual_zips_give_images_or_reasons(tmp_path_factory, kind, changes, cut):
    fuzz(tmp_path_factory.getbasetemp(), kind, changes, cut)


@pytest.mark.soak
@settings(max_examples=40_000, deadline=2000)
@given(kind=st.sampled_from([*WHOLE]), changes=mutations, cut=st.none() | st.integers(1, 2**20))
def test_soak_of_mutated_unusual_zips(tmp_path_factory, kind, changes, cut):
    fuzz(tmp_path_factory.getbasetemp(), kind, changes, cut)


def test_zip_of_python_in_a_stream_is_read(tmp_path):
    class Pipe(io.BytesIO):
        def seekable(self):
            return False

        def tell(self):
            raise OSError

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.jpeg", jpeg(1))
    assert read(tmp_path / "a.zip", pipe.getvalue()) == ({"x.jpeg": jpeg(1)}, {})

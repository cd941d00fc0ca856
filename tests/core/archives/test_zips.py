"""Zips: listed by their directory, members inflated within bounds, cut ones up to the cut."""

import io
import struct
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.images.archived import contents, jpeg, listing, mutations, pictures, set_encrypted, zip_bytes


def write(folder, data: bytes):
    (folder / "a.zip").write_bytes(data)
    return folder / "a.zip"


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members_are_found_and_read(tmp_path, method):
    files = {**pictures(5), "../../x.jpeg": jpeg(7), "/etc/ü.jpeg": jpeg(8)}
    path = write(tmp_path, b"#!/bin/sh\n" + zip_bytes(files, method))
    images, skipped = listing(path)
    assert contents(images) == {f"file://{path}!/{name}": data for name, data in files.items()}
    assert not skipped


def test_zip_of_more_members_than_32_bits_of_its_fields_tell(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, archive.open("x.jpeg", "w", force_zip64=True) as member:
        member.write(jpeg(1))
    images, _ = listing(write(tmp_path, buffer.getvalue()))
    assert list(contents(images).values()) == [jpeg(1)]


@pytest.mark.slow
def test_zip64_directory_of_70_000_members(tmp_path):
    path = write(
        tmp_path, zip_bytes({f"{number}.jpeg": b"x" for number in range(70_000)}, zipfile.ZIP_STORED)
    )
    images, skipped = listing(path)
    assert (len(images), dict(skipped)) == (70_000, {})


def test_members_of_one_name_have_rows_of_their_own(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x.jpeg", jpeg(0))
        for number in (1, 2):
            with pytest.warns(UserWarning, match="Duplicate"):
                archive.writestr("x.jpeg", jpeg(number))
    images, _ = listing(write(tmp_path, buffer.getvalue()))
    assert sorted(contents(images).values()) == sorted(jpeg(number) for number in range(3))


def test_what_is_no_image_is_counted_and_what_is_encrypted_rejected(tmp_path):
    names = ["__MACOSX/._x.jpeg", ".x.jpeg", "notes.txt", "inner.zip"]
    plain = zip_bytes({**dict.fromkeys(names, b"text"), "x.jpeg": jpeg(1)})
    images, skipped = listing(write(tmp_path, set_encrypted(plain)))
    assert list(contents(images).values()) == ["unsupported"]
    assert skipped == {"hidden": 2, "no_image": 1, "nested_archive": 1}


def test_other_methods_are_rejected(tmp_path):
    images, _ = listing(write(tmp_path, zip_bytes({"x.jpeg": jpeg(1)}, zipfile.ZIP_BZIP2)))
    assert list(contents(images).values()) == ["unsupported"]


def test_picture_without_suffix_is_known_by_its_content(tmp_path):
    images, skipped = listing(write(tmp_path, zip_bytes({"IM0001": jpeg(1), "README": b"text"})))
    assert [image.uri.rpartition("/")[2] for image in images] == ["IM0001"]
    assert skipped == {"no_image": 1}


def test_member_of_which_it_is_not_known_whether_it_is_an_image_has_a_row_that_says_why(tmp_path):
    plain = zip_bytes({"IM0001": jpeg(1)})
    no_header = plain.replace(b"PK\3\4", b"PK\0\0")
    for data, reason in (
        (set_encrypted(plain), "unsupported"),
        (zip_bytes({"IM0001": jpeg(1)}, zipfile.ZIP_LZMA), "unsupported"),
        (no_header, "unreadable"),
    ):
        images, skipped = listing(write(tmp_path, data))
        assert (list(contents(images).values()), dict(skipped)) == ([reason], {})


def test_version_outlives_an_unrelated_member(tmp_path):
    before, _ = listing(write(tmp_path, zip_bytes({"x.jpeg": jpeg(1)})))
    after, _ = listing(write(tmp_path, zip_bytes({"a.jpeg": jpeg(2), "x.jpeg": jpeg(1)})))
    changed, _ = listing(write(tmp_path, zip_bytes({"x.jpeg": jpeg(3)})))
    assert before[0].version == after[1].version != changed[0].version


def test_members_before_the_cut_are_read_and_the_cut_is_counted(tmp_path):
    files = pictures(10)
    whole = zip_bytes(files)
    images, skipped = listing(write(tmp_path, whole[: len(whole) // 2]))
    read = list(contents(images).values())
    assert read[:-1] == list(files.values())[: len(read) - 1]
    assert read[-1] == "truncated"
    assert len(read) >= 4
    assert skipped == {"truncated_archive": 1}


class Unseekable(io.BytesIO):
    def seekable(self):
        return False

    def tell(self):
        raise io.UnsupportedOperation

    seek = tell


@pytest.mark.parametrize("sizes", ["four bytes", "eight bytes"])
def test_members_whose_sizes_follow_them_are_found_up_to_the_cut(tmp_path, sizes):
    files = pictures(10)
    buffer = Unseekable()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            with archive.open(name, "w", force_zip64=sizes == "eight bytes") as member:
                member.write(data)
    whole = buffer.getvalue()
    listed, _ = listing(write(tmp_path, whole))
    images, skipped = listing(write(tmp_path, whole[: len(whole) // 2]))
    assert list(contents(images).values()) == list(files.values())[: len(images)]
    assert [(image.uri, image.version) for image in images] == [
        (image.uri, image.version) for image in listed[: len(images)]
    ]
    assert len(images) >= 4
    assert skipped == {"truncated_archive": 1}


def test_member_that_was_cut_is_another_version_when_it_is_whole(tmp_path):
    whole = zip_bytes(pictures(4))
    cut, _ = listing(write(tmp_path, whole[: len(whole) // 2]))
    assert [reason for reason in contents(cut).values() if isinstance(reason, str)] == ["truncated"]
    listed, _ = listing(write(tmp_path, whole))
    same = [one.version == other.version for one, other in zip(cut, listed, strict=False)]
    assert same == [True] * (len(cut) - 1) + [False]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_member_that_moved_since_it_was_listed_is_no_damage(tmp_path, method):
    files = pictures(4)
    listed, _ = listing(write(tmp_path, zip_bytes(files, method)))
    write(tmp_path, zip_bytes({"new.jpeg": jpeg(9)} | files, method))
    assert set(contents(listed).values()) == {"unreadable"}
    write(tmp_path, zip_bytes({"new.jpeg": jpeg(9)}, method))
    assert set(contents(listed).values()) == {"unreadable"}


def test_sizes_that_no_inventory_holds_are_damage(tmp_path):
    raw = zip_bytes({"x.jpeg": jpeg(1, 16)})
    directory, end = raw.index(b"PK\1\2"), raw.index(b"PK\5\6")
    entry = bytearray(raw[directory:end])
    struct.pack_into("<L", entry, 24, 0xFFFFFFFF)
    extra = struct.pack("<HHQ", 1, 8, 2**63 + 5)
    struct.pack_into("<H", entry, 30, len(extra))
    entry += extra
    ending = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(entry), directory, 0)
    images, skipped = listing(write(tmp_path, raw[:directory] + entry + ending))
    assert (images, skipped) == ([], {"damaged_archive": 1})


def test_place_that_a_directory_names_again_and_again_is_listed_in_time(tmp_path):
    raw = zip_bytes({"x.jpeg": jpeg(1, 16)})
    directory, end = raw.index(b"PK\1\2"), raw.index(b"PK\5\6")
    entry, count = raw[directory:end], 3000
    ending = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(entry) * count, directory, 0)
    images, _ = listing(write(tmp_path, raw[:directory] + entry * count + ending))
    uris = [image.uri.rpartition("/")[2] for image in images]
    assert len(set(uris)) == count
    assert uris[:4] == ["x.jpeg", "x.jpeg@0", "x.jpeg@0@1", "x.jpeg@0@2"]


def test_bomb_is_rejected_by_what_it_says_and_by_what_it_does(tmp_path):
    bomb = bytearray(zip_bytes({"x.jpeg": bytes(64 * 2**20)}))
    at = bomb.find(b"PK\x01\x02")
    for said, reason in ((100, "corrupt"), (2**31, "too_large")):
        struct.pack_into("<L", bomb, at + 24, said)
        images, _ = listing(write(tmp_path, bytes(bomb)))
        assert list(contents(images).values()) == [reason]


def test_changed_byte_is_found_by_the_checksum(tmp_path):
    data = bytearray(zip_bytes({"x.jpeg": jpeg(1)}, zipfile.ZIP_STORED))
    data[200] ^= 1
    images, _ = listing(write(tmp_path, bytes(data)))
    assert list(contents(images).values()) == ["corrupt"]


def fuzz(tmp_path_factory, changes, cut: int | None) -> None:
    data = bytearray(WHOLE)
    for at, value in changes:
        # The directory is where a lister can be led astray: half of the changes go there.
        position = at % len(data) if at % 2 else len(data) - 1 - at % 400
        data[position] = value
    path = write(tmp_path_factory.getbasetemp(), bytes(data if cut is None else data[: cut % len(data)]))
    images, _ = listing(path)
    assert len({image.uri for image in images}) == len(images)
    assert all(isinstance(read, bytes | str) for read in contents(images).values())


WHOLE = zip_bytes({f"{number}.jpeg": jpeg(number, 16) for number in range(4)})


@settings(max_examples=80, deadline=2000)
@given(changes=mutations, cut=st.none() | st.integers(1, 2**20))
def test_mutated_zips_give_images_or_reasons(tmp_path_factory, changes, cut):
    fuzz(tmp_path_factory, changes, cut)


@pytest.mark.soak
@settings(max_examples=60_000, deadline=2000)
@given(changes=mutations, cut=st.none() | st.integers(1, 2**20))
def test_soak_of_mutated_zips(tmp_path_factory, changes, cut):
    fuzz(tmp_path_factory, changes, cut)

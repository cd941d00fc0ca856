"""Tars: listed by their headers, read by range, cut and damaged ones up to the cut."""

import errno
import gzip
import io
import tarfile

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.images.archived import (
    contents,
    jpeg,
    listing,
    mutations,
    pictures,
    request,
    tar_bytes,
    through_the_inventory,
)

from pneumonia_core.archives.archive import read_image_bytes
from pneumonia_core.archives.containers import compressed_tar
from pneumonia_core.archives.containers.compressed_tar import idle_streams
from pneumonia_core.errors import PneumoniaError, RejectedImage
from pneumonia_core.storage.errors import CredentialsError


def write(folder, data: bytes, name: str = "a.tar"):
    (folder / name).write_bytes(data)
    return folder / name


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_of_every_dialect_are_found_and_read(tmp_path, kind):
    long_name = "/".join(["folder" * 5] * (4 if kind == tarfile.USTAR_FORMAT else 20)) + "/x.jpeg"
    files = {"a.jpeg": jpeg(1), long_name: jpeg(2), "b c.jpeg": jpeg(3)}
    path = write(tmp_path, tar_bytes(files, kind))
    images, skipped = listing(path)
    assert contents(images) == {f"file://{path}!/{name}": data for name, data in files.items()}
    assert not skipped


def test_names_that_climb_out_are_only_names(tmp_path):
    files = {"../../x.jpeg": jpeg(1), "/etc/x.jpeg": jpeg(2), "ü\n#?%.jpeg": jpeg(3)}
    path = write(tmp_path, tar_bytes(files))
    images, _ = listing(path)
    assert contents(images) == {f"file://{path}!/{name}": data for name, data in files.items()}
    assert [file.name for file in tmp_path.iterdir()] == ["a.tar"]


def test_members_of_one_name_have_rows_of_their_own(tmp_path):
    path = write(tmp_path, tar_bytes([("x.jpeg", jpeg(number)) for number in range(3)]))
    images, _ = listing(path)
    assert sorted(contents(images).values()) == sorted(jpeg(number) for number in range(3))
    assert images[0].uri == f"file://{path}!/x.jpeg"


def test_what_is_no_image_is_counted(tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in ("__MACOSX/x.jpeg", "._x.jpeg", ".git/x.jpeg", "notes.txt", "b.zip", "notes"):
            info = tarfile.TarInfo(name)
            info.size = 4
            tar.addfile(info, io.BytesIO(b"text"))
        for name, kind in (
            ("link.jpeg", tarfile.SYMTYPE),
            ("fifo.jpeg", tarfile.FIFOTYPE),
            ("d", tarfile.DIRTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        info = tarfile.TarInfo("1.2.840.10008.55")
        info.size = len(jpeg(1))
        tar.addfile(info, io.BytesIO(jpeg(1)))
    images, skipped = listing(write(tmp_path, buffer.getvalue()))
    assert [image.uri.rpartition("/")[2] for image in images] == ["1.2.840.10008.55"]
    assert skipped == {
        "hidden": 3, "no_image": 2, "nested_archive": 1, "link_in_archive": 1, "no_regular_file": 1,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_members_before_the_cut_are_read_and_the_cut_is_counted(tmp_path, name):
    files = pictures(10)
    whole = tar_bytes(files)
    data = whole[: 6 * len(whole) // 10] if name == "a.tar" else gzip.compress(whole)[: 6 * len(whole) // 10]
    images, skipped = listing(write(tmp_path, data, name))
    read = list(contents(images).values())
    assert len(read) >= 4
    assert read[:-1] == list(files.values())[: len(read) - 1]
    assert read[-1] in ("truncated", list(files.values())[len(read) - 1])
    assert skipped == {"truncated_archive": 1}


def test_damaged_header_ends_the_listing_and_is_counted(tmp_path):
    data = bytearray(tar_bytes(pictures(3)))
    at = data.find(b"ward 1/")
    data[at : at + 4] = b"\xff\xff\xff\xff"
    images, skipped = listing(write(tmp_path, bytes(data)))
    assert (len(images), dict(skipped)) == (1, {"damaged_archive": 1})


def test_version_changes_when_the_content_of_a_member_does(tmp_path):
    first, _ = listing(write(tmp_path, tar_bytes({"x.jpeg": bytes(100)})))
    again, _ = listing(tmp_path / "a.tar")
    other, _ = listing(write(tmp_path, tar_bytes({"x.jpeg": b"1" * 100})))
    assert first == again
    assert first[0].version != other[0].version


def test_compressed_tar_is_inflated_once_for_all_chunks_of_a_worker(tmp_path):
    files = pictures(40)
    images, _ = listing(write(tmp_path, gzip.compress(tar_bytes(files)), "a.tar.gz"))
    idle_streams.clear()
    read = [data for start in range(0, 40, 8) for data in contents(images[start : start + 8]).values()]
    assert read == list(files.values())
    assert len(idle_streams) == 1


def test_gzip_bomb_ends(tmp_path, monkeypatch):
    monkeypatch.setattr("pneumonia_core.archives.containers.compressed_tar._FREE_BYTES", 2**20)
    bomb = tar_bytes({"x.jpeg": jpeg(1), "zeros.txt": bytes(64 * 2**20), "y.jpeg": jpeg(2)})
    images, skipped = listing(write(tmp_path, gzip.compress(bomb), "a.tar.gz"))
    assert len(images) == 1
    assert skipped["truncated_archive"] == 1


def packed(files: dict[str, bytes], name: str) -> bytes:
    tar = tar_bytes(files)
    if name.endswith(".zst"):
        return pa.Codec("zstd").compress(tar, asbytes=True)
    return gzip.compress(tar) if name.endswith(".gz") else tar


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tar.zst"])
def test_no_image_of_a_tar_that_was_rewritten_has_the_bytes_of_another(tmp_path, name):
    files = {"anna.jpeg": jpeg(1), "bert.jpeg": jpeg(2)}
    images, _ = listing(write(tmp_path, packed(files, name), name))
    assert list(contents(images).values()) == list(files.values())
    write(tmp_path, packed(dict(reversed(files.items())), name), name)
    assert set(contents(images).values()) == {"unreadable"}
    for ref in through_the_inventory(images):
        with pytest.raises(RejectedImage, match="rewritten since it was listed") as raised:
            read_image_bytes(ref)
        assert raised.value.stage == "read"


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_images_of_an_inventory_are_read_as_they_were_listed(tmp_path, name):
    files = pictures(3)
    images, _ = listing(write(tmp_path, packed(files, name), name))
    refs = through_the_inventory(images)
    assert refs == [request(image) for image in images]
    assert [read_image_bytes(ref) for ref in refs] == list(files.values())


def extended_header(records: dict[str, str]) -> bytes:
    header = tarfile.TarInfo("x")
    header.type = tarfile.XHDTYPE
    data = b"".join(
        f"{len(key) + len(value) + 9:06d} {key}={value}\n".encode() for key, value in records.items()
    )
    header.size = len(data)
    return header.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % tarfile.BLOCKSIZE)


def test_sparse_files_are_counted_however_many_keys_tell_it(tmp_path):
    header = extended_header({f"GNU.sparse.{number}": "" for number in range(500)})
    images, skipped = listing(write(tmp_path, header + tar_bytes({"x.jpeg": jpeg(1), "y.jpeg": jpeg(2)})))
    assert list(contents(images).values()) == [jpeg(2)]
    assert skipped == {"sparse_file_in_archive": 1}


def test_chain_of_extended_headers_without_a_member_is_damage(tmp_path):
    chain = b"".join(extended_header({"path": f"{number}.jpeg"}) for number in range(40))
    images, skipped = listing(write(tmp_path, chain + tar_bytes({"x.jpeg": jpeg(1)})))
    assert (len(images), dict(skipped)) == (0, {"damaged_archive": 1})


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tar.zst"])
def test_disk_that_fails_within_a_compressed_tar_ends_the_listing(tmp_path, monkeypatch, name):
    path = write(tmp_path, packed({"x.jpeg": jpeg(1)}, name), name)

    class Failing(io.FileIO):
        def read(self, count=-1):
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(compressed_tar, "open_stream", lambda stored: Failing(path))
    with pytest.raises(PneumoniaError, match="could not be listed to its end"):
        listing(path)


def entry(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", link: str = "", size=None) -> bytes:
    """One entry of a tar, with data whatever its type."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(data) if size is None else size
    return info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % tarfile.BLOCKSIZE)


def with_times(entry: bytes) -> bytes:
    """The entry as GNU tar writes it in an incremental tar: access and change times behind the magic."""
    block = bytearray(entry[:512])
    block[345:369] = b"15302041061\0" * 2
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + entry[512:]


END = bytes(2 * tarfile.BLOCKSIZE)


@pytest.mark.parametrize("packed_by", [bytes, gzip.compress])
@pytest.mark.parametrize("end", [END, bytes(10_240), bytes(200_704), END[:512], END[:100], b""])
def test_tar_ends_with_zeros_or_without_and_others_may_follow(tmp_path, end, packed_by):
    first, second = (entry(f"{number}.jpeg", data=jpeg(number)) for number in (1, 2))
    between = end if len(end) % 512 == 0 else END
    images, skipped = listing(write(tmp_path, packed_by(first + between + second + end)))
    assert list(contents(images).values()) == [jpeg(1), jpeg(2)]
    assert not skipped


@pytest.mark.parametrize("packed_by", [bytes, gzip.compress])
def test_cut_within_data_is_counted_also_at_the_end_of_a_block(tmp_path, packed_by):
    whole = entry("1.jpeg", data=jpeg(1)) + entry("2.jpeg", data=jpeg(2))
    for cut in (512, 1000, 1024, 1300):
        images, skipped = listing(write(tmp_path, packed_by(whole[:-cut])))
        assert list(contents(images).values()) == [jpeg(1), "truncated"]
        assert skipped == {"truncated_archive": 1}
    assert listing(write(tmp_path, packed_by(whole + END + b"no header" * 100)))[1] == {"damaged_archive": 1}


@pytest.mark.parametrize("packed_by", [bytes, gzip.compress])
def test_hard_link_is_the_image_that_it_names(tmp_path, packed_by):
    long_name = "ward/" * 30 + "a.jpeg"
    parts = [
        entry("./a.jpeg", data=jpeg(1)),
        entry("././@LongLink", tarfile.GNUTYPE_LONGNAME, data=long_name.encode() + b"\0"),
        entry(long_name[:100], data=jpeg(2)),
    ]
    size = len(jpeg(1))
    links = [
        entry("b.jpeg", tarfile.LNKTYPE, link="a.jpeg"),
        # Some programs tell the size of the file, and some of them write its data again.
        entry("c.jpeg", tarfile.LNKTYPE, link="./a.jpeg", size=size),
        entry("d.jpeg", tarfile.LNKTYPE, data=jpeg(3), link="./a.jpeg"),
        entry("././@LongLink", tarfile.GNUTYPE_LONGLINK, data=long_name.encode() + b"\0"),
        entry("e.jpeg", tarfile.LNKTYPE, link=long_name[:100]),
        extended_header({"linkpath": "./a.jpeg"}) + entry("f.jpeg", tarfile.LNKTYPE, link="other"),
        entry("gone.jpeg", tarfile.LNKTYPE, link="not here.jpeg"),
        entry("notes.txt", tarfile.LNKTYPE, link="a.jpeg"),
        entry("last.jpeg", tarfile.LNKTYPE, link="a.jpeg", size=size),
    ]
    path = write(tmp_path, packed_by(b"".join([*parts, *links]) + END))
    images, skipped = listing(path)
    found = {uri.rpartition("!/")[2]: data for uri, data in contents(images).items()}
    same = dict.fromkeys(("./a.jpeg", "b.jpeg", "c.jpeg", "f.jpeg", "last.jpeg"), jpeg(1))
    assert found == {**same, long_name: jpeg(2), "e.jpeg": jpeg(2), "d.jpeg": jpeg(3)}
    assert skipped == {"link_in_archive": 1, "no_image": 1}


def test_hard_links_do_not_inflate_a_tar_again_and_again(tmp_path):
    links = b"".join(entry(f"{number}.jpeg", tarfile.LNKTYPE, link="a.jpeg") for number in range(100))
    whole = entry("a.jpeg", data=jpeg(1)) + links + END
    images, skipped = listing(write(tmp_path, gzip.compress(whole)))
    assert (len(images), dict(skipped)) == (65, {"link_in_archive": 36})
    assert len(listing(write(tmp_path, whole))[0]) == 101


def test_entries_that_are_no_files_give_no_rows_and_files_of_unusual_types_do(tmp_path):
    whole = b"".join(
        [
            entry("label.jpeg", b"V"),
            entry("folder.jpeg/", b"D", data=b"Yx.jpeg\0\0"),
            entry("old names.jpeg", b"N", data=b"Rename a.jpeg to b.jpeg\n"),
            entry("access.jpeg", b"A", data=b"user::rwx"),
            entry("global.jpeg", tarfile.XGLTYPE, data=b"19 comment=git hash\n"),
            entry("contiguous.jpeg", tarfile.CONTTYPE, data=jpeg(1)),
            entry("ancient.jpeg", tarfile.AREGTYPE, data=jpeg(2)),
            entry("rest.jpeg", b"M", data=jpeg(3)[700:]),
            entry("unheard of.jpeg", b"Z", data=jpeg(4)),
            # Incremental: times in place of the prefix, and a long name that is of the folder alone.
            entry("././@LongLink", tarfile.GNUTYPE_LONGNAME, data=b"folder/" * 20 + b"\0"),
            entry("folder/", b"D", data=b"Yx.jpeg\0\0"),
            with_times(entry("incremental.jpeg", data=jpeg(5))),
        ]
    )
    images, skipped = listing(write(tmp_path, whole + END))
    assert list(contents(images).values()) == [jpeg(1), jpeg(2), jpeg(4), jpeg(5)]
    assert images[-1].uri.endswith("!/incremental.jpeg")
    assert skipped == {"part_of_archive": 1}


def fuzz(tmp_path_factory, name: str, whole: bytes, changes, cut: int | None) -> None:
    data = bytearray(whole)
    for at, value in changes:
        data[at % len(data)] = value
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(bytes(data if cut is None else data[: cut % len(data)]))
    images, _ = listing(path)
    assert len({image.uri for image in images}) == len(images)
    assert all(isinstance(read, bytes | str) for read in contents(images).values())


WHOLE = tar_bytes([(f"{number}{'n' * 120 * (number % 2)}.jpeg", jpeg(number, 16)) for number in range(4)])


@settings(max_examples=60, deadline=2000)
@given(changes=mutations, cut=st.none() | st.integers(1, 2**20), name=st.sampled_from(["a.tar", "a.tar.gz"]))
def test_mutated_tars_give_images_or_reasons(tmp_path_factory, changes, cut, name):
    fuzz(tmp_path_factory, name, WHOLE if name == "a.tar" else gzip.compress(WHOLE, mtime=0), changes, cut)


@pytest.mark.soak
@settings(max_examples=60_000, deadline=2000)
@given(changes=mutations, cut=st.none() | st.integers(1, 2**20), name=st.sampled_from(["a.tar", "a.tar.gz"]))
def test_soak_of_mutated_tars(tmp_path_factory, changes, cut, name):
    fuzz(tmp_path_factory, name, WHOLE if name == "a.tar" else gzip.compress(WHOLE, mtime=0), changes, cut)


def test_storage_that_fails_for_a_while_costs_the_member_at_hand(tmp_path, monkeypatch):
    files = pictures(6)
    path = write(tmp_path, gzip.compress(tar_bytes(files), 1), "a.tar.gz")
    images, _ = listing(path)
    opened = []

    class Failing(io.FileIO):
        def read(self, count=-1):
            if len(opened) == 1 and self.tell() > 0:
                raise RejectedImage("timeout", "the storage did not answer")
            return super().read(min(count, 8192) if count > 0 else count)

    def open_failing(uri):
        opened.append(uri)
        return Failing(path)

    monkeypatch.setattr(compressed_tar, "open_stream", open_failing)
    found = list(contents(images).values())
    assert found.count("timeout") == 1
    assert len([data for data in found if isinstance(data, bytes)]) == 5
    assert len(opened) == 2


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tar.zst"])
def test_reading_that_broke_off_leaves_no_stream_at_a_wrong_place(tmp_path, monkeypatch, name):
    files = pictures(6)
    path = write(tmp_path, packed(files, name), name)
    images, _ = listing(path)
    opened = []

    class Refused(io.FileIO):
        def read(self, count=-1):
            if len(opened) == 1 and self.tell() > 8192:
                raise CredentialsError("renew them")
            return super().read(min(count, 2048) if count > 0 else count)

    def open_refused(stored):
        opened.append(stored)
        return Refused(path)

    monkeypatch.setattr(compressed_tar, "open_stream", open_refused)
    idle_streams.clear()
    with pytest.raises(CredentialsError):
        contents(images)
    assert list(contents(images).values()) == list(files.values())

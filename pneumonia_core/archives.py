"""Archives of images: what is in them, in a fixed order, and the bytes of each image. Nothing is unpacked."""

import contextlib
import errno
import itertools
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from stat import S_ISDIR, S_ISREG
from typing import Final

import pyarrow.fs as pafs

from pneumonia_core import objects
from pneumonia_core.errors import InvalidInput, PneumoniaError, RejectedImage
from pneumonia_core.images import MAX_SOURCE_BYTES, sniff_format
from pneumonia_core.manifests import ListingRules, check_manifest, is_manifest, list_manifest
from pneumonia_core.members import (
    ENCRYPTED,
    FORBIDDEN,
    REAL_PATH,
    TAR,
    TAR_GZ,
    TAR_ZST,
    UNKNOWN_METHOD,
    ZIP_DEFLATED,
    ZIP_STORED,
    ImageRef,
    ListedImage,
    Member,
    tar_member_version,
)
from pneumonia_core.names import ARCHIVE_SUFFIXES, SNIFFED_BYTES, Verdict, as_text, judge_name, judge_path
from pneumonia_core.places import Place, error_text, open_place
from pneumonia_core.seen import Seen
from pneumonia_core.stored import (
    ReadAt,
    StoredFile,
    Window,
    local_file,
    read_file,
    read_range,
    read_real_file,
    stat_file,
)
from pneumonia_core.streams import InflatingStream
from pneumonia_core.tars import CUT, tar_members
from pneumonia_core.zips import DEFLATED, STORED, ZipMember, member_head, read_zip_member, zip_members

_SNIFFING_THREADS: Final = 16
# Of a name: there is nothing. Any other error is the disk's, or there may be images that we must not read.
_ABSENT: Final = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO))
_DENIED: Final = frozenset((errno.EACCES, errno.EPERM))
# Every disk has one at its root, for the administrator alone.
_LOST_AND_FOUND: Final = "lost+found"
_NO_RULES: Final = ListingRules()
# What is in a folder: each name, and whether it is a folder itself.
_Names = Iterator[tuple[str, bool]]


def open_archive(text: str, rules: ListingRules = _NO_RULES) -> str:
    """The canonical URI of an archive that a user names. Raises InvalidInput where there is none."""
    place = open_place(text)
    try:
        found = _opens_locally(place.path) if place.is_local else _exists_remotely(place)
    except OSError as error:
        raise InvalidInput(f"{place.uri}: the archive cannot be opened ({error_text(error)}).") from error
    except objects.CredentialsError as error:
        raise InvalidInput(f"{place.uri}: the archive cannot be opened ({error}).") from error
    if not found:
        raise InvalidInput(f"{text!r}: no such file or folder. Check the spelling of the archive.")
    if is_manifest(place.uri):
        check_manifest(place.uri, rules)
    return place.uri


def check_disjoint(archives: list[str]) -> None:
    """Raise InvalidInput where one archive lies in another: its images would be listed twice."""
    ordered = sorted(archive.rstrip("/") + "/" for archive in archives)
    for one, other in itertools.pairwise(ordered):
        if other.startswith(one):
            raise InvalidInput(
                f"the archive {other.rstrip('/')} lies in {one.rstrip('/')}: name each image's archive once."
            )


def list_archive(
    archive: str, skipped: Counter[str], rules: ListingRules = _NO_RULES
) -> Iterator[ListedImage]:
    """The images of an archive in a fixed order; what is skipped is counted by kind in `skipped`.

    Tars and zips found in a folder or bucket are opened as well. Raises PneumoniaError where the storage
    fails: images that are merely out of reach must not count as gone.
    """
    if is_manifest(archive):
        yield from list_manifest(archive, rules, skipped)
    elif archive.startswith("file://"):
        yield from _list_local(archive.removeprefix("file://"), skipped)
    else:
        yield from _list_bucket(open_place(archive), skipped)


def read_image_bytes(ref: ImageRef) -> bytes:
    """The bytes of an image. Raises RejectedImage, mostly with a reason of the stage `read`."""
    if ref.rejection is not None:
        raise RejectedImage(*ref.rejection)
    if ref.data is not None:
        return ref.data
    member = ref.member
    if member is None:
        return read_file(ref.uri)
    if member.method == FORBIDDEN:
        raise RejectedImage("forbidden", "the manifest may not name it: see --allow-prefix")
    if member.method == ENCRYPTED:
        raise RejectedImage("unsupported", "an encrypted member of an archive")
    if member.method == UNKNOWN_METHOD:
        raise RejectedImage("unsupported", "compressed by a method other than deflate")
    if member.method == REAL_PATH:
        return read_real_file(member.container.removeprefix("file://"))
    if member.method in (ZIP_STORED, ZIP_DEFLATED):
        return read_zip_member(
            _read_at(member.container),
            member.offset,
            member.stored_bytes,
            member.size_bytes,
            member.crc32,
            member.method == ZIP_DEFLATED,
        )
    return _read_tar_member(member)


def _read_tar_member(member: Member) -> bytes:
    if member.method != TAR:
        with contextlib.closing(InflatingStream(member.container, member.method)) as stream:
            return stream.member(member)
    if member.size_bytes > MAX_SOURCE_BYTES:
        raise RejectedImage("too_large", f"{member.size_bytes} bytes, the limit is {MAX_SOURCE_BYTES}")
    data = read_range(member.container, member.offset, member.size_bytes, member.container_version)
    if len(data) < member.size_bytes:
        raise RejectedImage("truncated", f"the archive ends after {len(data)} of {member.size_bytes} bytes")
    return data


def _read_at(uri: str) -> ReadAt:
    return lambda offset, count: read_range(uri, offset, count)


def _opens_locally(path: str) -> bool:
    """Whether there is a file or folder. Raises OSError where it is not one that we may read."""
    try:
        status = os.stat(path)  # noqa: PTH116 - a plain path is the raw name
    except (FileNotFoundError, NotADirectoryError):
        return False
    if S_ISDIR(status.st_mode):
        os.scandir(path).close()
    else:
        # A FIFO would be waited for.
        if not S_ISREG(status.st_mode):
            raise OSError("no regular file")
        open(path, "rb").close()  # noqa: PTH123
    return True


def _exists_remotely(place: Place) -> bool:
    if not place.is_s3:
        return bool(place.fs.get_file_info(place.path).type != pafs.FileType.NotFound)
    if "/" in place.path:
        try:
            objects.head(place.uri)
            return True
        except RejectedImage as rejected:
            if rejected.reason == "forbidden":
                if _is_listable(place.uri):
                    return True
                raise InvalidInput(
                    f"{place.uri}: the archive cannot be opened ({rejected.detail})."
                ) from rejected
            if rejected.reason != "not_found":
                raise PneumoniaError(
                    f"{place.uri}: the archive cannot be opened ({rejected.detail}). Run the same command again when it "
                    "answers."
                ) from rejected
    return any(objects.list_pages(_prefix(place.uri)))


def _is_listable(uri: str) -> bool:
    """Whether there is a folder in S3, of which we may be allowed to list what is in it and nothing else."""
    try:
        return any(objects.list_pages(_prefix(uri)))
    except InvalidInput:
        return False


def _prefix(uri: str) -> str:
    """What all keys beneath a folder of a bucket begin with."""
    return f"{uri}/"


def _list_local(root: str, skipped: Counter[str]) -> Iterator[ListedImage]:
    try:
        status = os.stat(root)  # noqa: PTH116 - a plain path is the raw name
        opened = _entries(root) if S_ISDIR(status.st_mode) else local_file(root, status)
    except (OSError, RejectedImage) as error:
        why = error.detail if isinstance(error, RejectedImage) else error_text(error)
        raise PneumoniaError(
            f"file://{root}: the archive cannot be opened ({why}). Mend it and run the same command again."
        ) from error
    if isinstance(opened, StoredFile):
        yield from _file_or_members(opened, skipped)
    else:
        yield from _walk(root, opened, skipped)


def _list_bucket(place: Place, skipped: Counter[str]) -> Iterator[ListedImage]:
    if "/" in place.path:
        try:
            yield from _file_or_members(stat_file(place.uri), skipped)
            return
        except RejectedImage as rejected:
            listable = rejected.reason == "forbidden" and place.is_s3 and _is_listable(place.uri)
            if rejected.reason != "not_found" and not listable:
                raise PneumoniaError(f"{place.uri} cannot be listed: {rejected.detail}.") from rejected
    pages = _s3_pages(place.uri) if place.is_s3 else _other_pages(place)
    with ThreadPoolExecutor(_SNIFFING_THREADS, thread_name_prefix="sniff") as pool:
        for page in pages:
            verdicts = [judge_path(stored.uri.removeprefix(_prefix(place.uri))) for stored in page]
            unknown = [s for s, verdict in zip(page, verdicts, strict=True) if verdict == "look inside"]
            pictures = iter(pool.map(_looks_like_image, unknown))
            for stored, verdict in zip(page, verdicts, strict=True):
                if verdict == "look inside":
                    verdict = "image" if next(pictures) else "no image"
                if verdict == "image":
                    yield ListedImage(stored.uri, stored.version, stored.size_bytes)
                elif verdict == "archive":
                    yield from _members(stored, skipped)
                elif not stored.uri.endswith("/"):
                    skipped[verdict] += 1


def _s3_pages(uri: str) -> Iterator[list[StoredFile]]:
    for page in objects.list_pages(_prefix(uri)):
        yield [StoredFile(found.uri, found.size_bytes, found.version) for found in page]


def _other_pages(folder: Place) -> Iterator[list[StoredFile]]:
    """The files of each folder, depth first: pyarrow holds one folder's entries at a time. Of Google's it holds all: it
    does not tell which folders there are, only what is in them at any depth."""
    scheme = folder.uri.partition("://")[0]
    at_once = scheme == "gs"
    folders = [folder.path]
    while folders:
        path = folders.pop()
        try:
            found = folder.fs.get_file_info(pafs.FileSelector(path, recursive=at_once))
        except OSError as error:
            raise PneumoniaError(f"{scheme}://{path} cannot be listed ({error_text(error)}).") from error
        found.sort(key=lambda info: info.path)
        yield [
            StoredFile(f"{scheme}://{info.path}", info.size, f"{info.size}-{info.mtime_ns}")
            for info in found
            if info.is_file
        ]
        if not at_once:
            folders += [info.path for info in reversed(found) if info.type == pafs.FileType.Directory]


def _looks_like_image(stored: StoredFile) -> bool:
    try:
        return _is_image_head(read_range(stored.uri, 0, SNIFFED_BYTES))
    except RejectedImage:
        # Whether it is one is not known: it becomes a row that says why it could not be read.
        return True


def _is_image_head(head: bytes) -> bool:
    try:
        sniff_format(head)
    except RejectedImage:
        return False
    return True


def _walk(root: str, names: _Names, skipped: Counter[str]) -> Iterator[ListedImage]:
    """Depth first, names in byte order, so that every listing of the same folder has the same order."""
    # A stack of our own: folders may lie deeper in each other than Python calls.
    opened = [(root, names)]
    while opened:
        folder, entries = opened[-1]
        name, is_folder = next(entries, (None, False))
        if name is None:
            opened.pop()
            continue
        path = os.path.join(folder, name)  # noqa: PTH118 - the raw name
        if judge_name(name) == "hidden":
            skipped["hidden"] += 1
        elif not is_folder:
            yield from _file(path, name, skipped)
        else:
            try:
                opened.append((path, _entries(path)))
            except OSError as error:
                if name != _LOST_AND_FOUND:
                    _raise_unless_absent(error, path)
                skipped["folder that cannot be opened"] += 1


def _entries(folder: str) -> _Names:
    """The names in a folder in byte order, and which are folders. Of them only the names are held, in a few dozen bytes
    each."""
    folders: set[bytes] = set()
    ordered: list[bytes] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            ordered.append(os.fsencode(entry.name))
            if entry.is_dir(follow_symlinks=False):
                folders.add(ordered[-1])
    ordered.sort()
    return ((os.fsdecode(raw), raw in folders) for raw in ordered)


def _raise_unless_absent(error: OSError, path: str) -> None:
    """Images that are out of reach are not gone: the listing must not go on without them. A link is no image that we
    knew before it led to where we may not look."""
    is_link = error.errno in _DENIED and os.path.islink(path)  # noqa: PTH114 - a plain path is the raw name
    if error.errno not in _ABSENT and not is_link:
        raise PneumoniaError(
            f"{_shown(path)} cannot be listed ({error_text(error)}). Mend it, or move it out of the archive, and run "
            "the same command again."
        ) from error


def _shown(path: str) -> str:
    """The URI of a local path, whose name may be no UTF-8."""
    return f"file://{as_text(os.fsencode(path))}"


def _file(path: str, name: str, skipped: Counter[str]) -> Iterator[ListedImage]:
    try:
        status = os.stat(path)  # noqa: PTH116 - a plain path is the raw name
    except OSError as error:
        _raise_unless_absent(error, path)
        skipped["broken link"] += 1
        return
    if not S_ISREG(status.st_mode):
        skipped["no regular file"] += 1
        return
    verdict = judge_name(name)
    stored = local_file(path, status)
    if verdict == "look inside":
        verdict = "image" if _looks_like_image_here(path) else "no image"
    if verdict == "image":
        yield ListedImage(stored.uri, stored.version, stored.size_bytes)
    elif verdict == "archive":
        yield from _members(stored, skipped)
    else:
        skipped[verdict] += 1


def _looks_like_image_here(path: str) -> bool:
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            return _is_image_head(file.read(SNIFFED_BYTES))
    except OSError:
        # Whether it is one is not known: it becomes a row that says why it could not be read.
        return True


def _file_or_members(stored: StoredFile, skipped: Counter[str]) -> Iterator[ListedImage]:
    """A file that was named itself: an archive by its suffix, else an image, whatever its name."""
    if stored.uri.lower().endswith(ARCHIVE_SUFFIXES):
        yield from _members(stored, skipped)
    else:
        yield ListedImage(stored.uri, stored.version, stored.size_bytes)


def _members(stored: StoredFile, skipped: Counter[str]) -> Iterator[ListedImage]:
    """The images in a tar or zip, in their order. Their names are only names; of a name that comes again the
    URI tells where it stands."""
    lower = stored.uri.lower()
    if lower.endswith(".zip"):
        listed = _zip(stored, skipped)
    elif lower.endswith(".tar"):
        listed = _tar(stored, TAR, Window(stored.uri), skipped)
    else:
        listed = _compressed_tar(stored, TAR_ZST if lower.endswith(".zst") else TAR_GZ, skipped)
    try:
        yield from _with_own_uris(listed)
    except RejectedImage as rejected:
        if rejected.stage == "decode":
            skipped[CUT] += 1
        elif rejected.reason == "not_found":
            skipped["archive that cannot be opened"] += 1
        else:
            remedy = "give us the right to read it, or move it out of the archive, and "
            raise PneumoniaError(
                f"{stored.uri} could not be listed to its end: {rejected.detail}. Nothing was committed; "
                f"{remedy if rejected.reason == 'forbidden' else ''}run the same command again."
            ) from rejected


def _with_own_uris(listed: Iterator[ListedImage]) -> Iterator[ListedImage]:
    seen = Seen()
    numbers = itertools.count(1)
    for image in listed:
        if not seen.add(image.uri):
            assert image.member is not None
            uri = there = f"{image.uri}@{image.member.offset}"
            # A zip's directory may name one place any number of times.
            while not seen.add(uri):
                uri = f"{there}@{next(numbers)}"
            image = replace(image, uri=uri)
        yield image


def _compressed_tar(stored: StoredFile, method: str, skipped: Counter[str]) -> Iterator[ListedImage]:
    with contextlib.closing(InflatingStream(stored.uri, method)) as stream:
        yield from _tar(stored, method, stream, skipped)


def _tar(stored: StoredFile, method: str, read_at: ReadAt, skipped: Counter[str]) -> Iterator[ListedImage]:
    for member in tar_members(read_at, skipped):
        verdict = judge_path(member.name)
        if verdict == "look inside":
            head = read_at(member.offset, min(SNIFFED_BYTES, member.size_bytes))
            verdict = "image" if _is_image_head(head) else "no image"
        if verdict == "image":
            place = Member(
                stored.uri,
                method,
                member.offset,
                member.size_bytes,
                member.size_bytes,
                container_version=stored.version,
            )
            version = tar_member_version(stored.version, member.offset)
            yield ListedImage(f"{stored.uri}!/{member.name}", version, member.size_bytes, place)
        else:
            skipped["archive in an archive" if verdict == "archive" else verdict] += 1


def _zip(stored: StoredFile, skipped: Counter[str]) -> Iterator[ListedImage]:
    read_at = _read_at(stored.uri)
    for member in zip_members(read_at, stored.size_bytes, skipped):
        if member.name.endswith("/"):
            continue
        verdict = judge_path(member.name)
        if verdict == "look inside":
            verdict = _look_inside_zip(read_at, member)
        if verdict == "image":
            place = Member(
                stored.uri,
                _zip_method(member),
                member.offset,
                member.stored_bytes,
                member.size_bytes,
                member.crc32,
            )
            version = f"{member.size_bytes}-{member.crc32:08x}"
            yield ListedImage(f"{stored.uri}!/{member.name}", version, member.size_bytes, place)
        else:
            skipped["archive in an archive" if verdict == "archive" else verdict] += 1


def _look_inside_zip(read_at: ReadAt, member: ZipMember) -> Verdict:
    try:
        head = member_head(read_at, member, SNIFFED_BYTES)
    except RejectedImage as rejected:
        if rejected.stage == "read":
            raise
        head = b""
    return "image" if _is_image_head(head) else "no image"


def _zip_method(member: ZipMember) -> str:
    if member.encrypted:
        return ENCRYPTED
    return {STORED: ZIP_STORED, DEFLATED: ZIP_DEFLATED}.get(member.method, UNKNOWN_METHOD)

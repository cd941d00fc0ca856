"""Which image a line of a manifest names, and whether it may be read.

Whoever wrote a manifest must not be able to have other files read: only those in allowed folders are.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final
from urllib.parse import unquote

from pneumonia_core.archives.entries import NOT_ALLOWED, OTHER_FORM, Refused
from pneumonia_core.archives.named_members import split_member_uri
from pneumonia_core.errors import InvalidInput
from pneumonia_core.storage.location import OPTIONS, SCHEMES, open_location
from pneumonia_core.storage.synonyms import canonical, what_to_write

_EVERYWHERE: Final = tuple(f"{scheme}://" for scheme in SCHEMES)
_SCHEME: Final = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_ENCODED: Final = re.compile("%[0-9A-Fa-f]{2}")
# `user:password@host`, with or without a scheme before it; IMG-10:00.png is a name.
_USER_INFO: Final = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*:[^?]*@")


@dataclass(frozen=True)
class NamedImage:
    """The `uri` of an image as the table shows it, and from where it is read: None where it is `refused`."""

    uri: str
    read_from: str | None
    refused: Refused = NOT_ALLOWED


def allowed_folders(folder: str, prefixes: Sequence[str]) -> tuple[str, ...]:
    """The folders in which images may be, as URIs that end in a slash: the manifest's own and those of the
    user.

    Links in local paths are resolved.
    """
    return tuple(_real_folder_uri(text) for text in (folder, *prefixes))


def _real_folder_uri(text: str) -> str:
    uri = open_location(text).uri
    if uri.startswith("file://"):
        uri = f"file://{os.path.realpath(uri.removeprefix('file://'))}"
    return uri.rstrip("/") + "/"


def trusted_image_uris(text: str, folder: str) -> list[str]:
    """The URIs of the image that a table in `folder` names, of a user who may read it wherever it is.

    Where there are two, one of them is there. Raises InvalidInput where `text` has another scheme,
    credentials or options.
    """
    named = named_images(text, folder, _EVERYWHERE)
    if named[0].read_from is None:
        raise InvalidInput(
            f"{named[0].uri!r} names no image: give a path, or a URI that begins with "
            f"{', '.join(_EVERYWHERE)} and has no credentials, no options and no `..`."
            f"{_advice(text)}"
        )
    return [image.uri for image in named]


def _advice(text: str) -> str:
    advice = what_to_write(text)
    return f" Here {advice}" if advice else ""


def named_images(text: str, folder: str, allowed: tuple[str, ...]) -> list[NamedImage]:
    """The images that a table may name by `text`, the likelier first: as it is, and percent-decoded.

    pathlib and Spark encode what they write as a URI; others do not, and a name may have a percent sign.
    """
    named = [named_image(text, folder, allowed)]
    if _SCHEME.match(canonical(text)) and _ENCODED.search(text):
        try:
            decoded = named_image(unquote(text, errors="strict"), folder, allowed)
        except UnicodeDecodeError:
            return named
        if decoded.read_from is not None:
            named.append(decoded)
    return named


def named_image(text: str, folder: str, allowed: tuple[str, ...]) -> NamedImage:
    """The image that a table in `folder` (a URI) names by `text`; it may be read if it is in an `allowed`
    folder."""
    member = split_member_uri(text)
    if member is None:
        return _named_file(text, folder, allowed)
    # The name of a member is only compared with the names in its container.
    container, name = _named_file(member[0], folder, allowed), member[1].replace("\0", "\\0")
    read_from = None if container.read_from is None else f"{container.read_from}!/{name}"
    return NamedImage(f"{container.uri}!/{name}", read_from, container.refused)


def _named_file(text: str, folder: str, allowed: tuple[str, ...]) -> NamedImage:
    written, text = text, canonical(text)
    found = _SCHEME.match(text)
    if (found and found[1] not in SCHEMES) or what_to_write(text):
        return replace(_refused(written), refused=OTHER_FORM)
    image = _named_here(text, folder, allowed)
    # Under its own scheme it may be in no allowed folder only because the user did not know that one.
    is_synonym = image.read_from is None and text != written
    return replace(image, refused=OTHER_FORM) if is_synonym else image


def _named_here(text: str, folder: str, allowed: tuple[str, ...]) -> NamedImage:
    found = _SCHEME.match(text)
    if _USER_INFO.match(text):
        return _refused(text)
    if found is None:
        text = f"{folder}/{text}" if not text.startswith("/") else f"file://{text}"
    scheme, _, rest = text.partition("://")
    authority, _, key = rest.partition("/")
    if "@" in authority or ":" in authority or OPTIONS.search(text) or "\0" in text:
        return _refused(text)
    if scheme == "file":
        return _refused(text) if authority else _local_file(f"/{key}", allowed)
    uri = f"{scheme}://{rest}"
    climbs = any(segment in (".", "..") for segment in key.split("/"))
    return _refused(uri) if climbs or not uri.startswith(allowed) else NamedImage(uri, uri)


def _local_file(path: str, allowed: tuple[str, ...]) -> NamedImage:
    path = os.path.abspath(path)  # noqa: PTH100 - keeps raw text
    real = f"file://{_real_path(path)}"
    return NamedImage(f"file://{path}", real if real.startswith(allowed) else None)


def _real_path(path: str) -> str:
    # Each folder is resolved once, not for each of its files.
    folder, name = os.path.split(path)
    if os.path.islink(path):  # noqa: PTH114 - keeps raw text
        return os.path.realpath(path)
    return os.path.join(_real_folder(folder), name)  # noqa: PTH118 - keeps raw text


@lru_cache(maxsize=4096)
def _real_folder(path: str) -> str:
    return os.path.realpath(path)


def _refused(text: str) -> NamedImage:
    """An image that is not read, under a URI that a table may show.

    User-info, which may hold any character, and all that follows a question mark are hidden: both may be
    secrets.
    """
    address, asked, _ = text.partition("?")
    address = re.sub(r"(://|:).*@", r"\1***@", address, count=1, flags=re.DOTALL)
    return NamedImage(f"{address}{asked and '?***'}".replace("\0", "\\0"), None)

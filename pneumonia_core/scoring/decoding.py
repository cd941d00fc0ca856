"""The road of every image to its pixels: read ahead, decode, or the reason why not.

Scoring, training and inspection take the same road, with its limits and its read-ahead.
"""

import dataclasses
import hashlib
import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import Final, TypeVar

from pneumonia_core.archives.archive import fetched_bytes
from pneumonia_core.archives.containers.compressed_tar import with_streamed_members
from pneumonia_core.archives.entries import FetchedImage, ImageRef
from pneumonia_core.errors import RejectedImage
from pneumonia_core.imaging.contract import Decoded
from pneumonia_core.imaging.decode import read_image
from pneumonia_core.scoring.prefetch import MAX_BYTES_AHEAD, ordered, with_remote_bytes
from pneumonia_core.system.failpoints import failpoint

# An image that its decoder has not finished by then never will be; twice the limit that a child gets.
STUCK_AFTER_S: Final = 60.0
# Handing one image at a time to a thread costs as much as decoding a very small one.
IMAGES_PER_TASK: Final = 4
Decode = Callable[[FetchedImage, int], Decoded]
Result = TypeVar("Result")


def read_and_decode(image: FetchedImage, image_size: int, trust_chest: bool = False) -> Decoded:
    """An image as pixels, or why it has none; either way with what is known of its source.

    With `trust_chest`, DICOM's modality and body part are not judged.
    """
    try:
        failpoint("decode", image.ref.uri)
        data = fetched_bytes(image)
    except RejectedImage as rejected:
        return Decoded(None, rejection=rejected.rejection)
    decoded = read_image(data, image_size, trust_chest)
    sha256 = hashlib.sha256(data).hexdigest()
    source = dataclasses.replace(decoded.source, sha256=sha256, size_bytes=len(data))
    return dataclasses.replace(decoded, source=source)


def decode_ahead(
    refs: Iterable[ImageRef],
    image_size: int,
    pool: Executor,
    readers: Executor,
    ahead: int,
    decode: Callable[[FetchedImage, int], Result],
    max_bytes: int = MAX_BYTES_AHEAD,
) -> Iterator[Result]:
    """What `decode` gives for each image, in order.

    Up to `ahead` of them are being decoded in the pool's threads. These also read the images that are on this
    machine. Others come from the threads of `readers`, up to `ahead` of them as well. Raises TimeoutError
    where one does not end: a thread cannot be stopped, only its process.
    """

    def start(group: list[FetchedImage]) -> Future[list[Result]] | list[Result]:
        return pool.submit(_decode_group, decode, group, image_size)

    groups = _groups(with_remote_bytes(with_streamed_members(refs), readers, ahead, max_bytes))
    in_flight = math.ceil(ahead / IMAGES_PER_TASK)
    stuck_after_s = STUCK_AFTER_S * IMAGES_PER_TASK
    for decoded in ordered(groups, start, in_flight, _bytes_of_group, max_bytes, stuck_after_s):
        yield from decoded


def exit_if_stuck(images: Iterator[Result]) -> Iterator[Result]:
    """The images. Ends this process where decoding one never ends: the next attempt decodes in children."""
    try:
        yield from images
    except TimeoutError:
        os._exit(1)


def _groups(images: Iterator[FetchedImage]) -> Iterator[list[FetchedImage]]:
    while group := list(itertools.islice(images, IMAGES_PER_TASK)):
        yield group


def _bytes_of_group(group: list[FetchedImage]) -> int:
    return sum(len(image.content) for image in group if isinstance(image.content, bytes))


def _decode_group(
    decode: Callable[[FetchedImage, int], Result], group: list[FetchedImage], image_size: int
) -> list[Result]:
    return [decode(image, image_size) for image in group]

"""Which page of a TIFF is the picture."""

from typing import Final

from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile

from pneumonia_core.errors import RejectedImage

# Tags of a page: what it is, in the present and in the old form, and pages that hang on it.
_KIND: Final = 254
_OLD_KIND: Final = 255
_SUB_PAGES: Final = 330
# Bits of _KIND: a reduced copy, a mask. Value of _OLD_KIND: a reduced copy.
_REDUCED_OR_MASK: Final = 1 | 4
_OLD_REDUCED: Final = 2
_MAX_PAGES: Final = 32
# A page that is smaller by at least this factor, and of the same shape, is a thumbnail.
_THUMBNAIL: Final = 2
_SHAPE_TOLERANCE: Final = 0.05


def select_page(image: TiffImageFile) -> None:
    """Turn a TIFF to its picture: the only page that is neither a thumbnail nor a mask.

    Raises RejectedImage where there are several, or where only a thumbnail can be read.
    """
    count = image.n_frames
    if count > _MAX_PAGES:
        raise _several(count)
    pages = [number for number in range(count) if not _is_marked(image, number)]
    if not pages:
        if count == 1 and _SUB_PAGES not in _tags(image):
            return
        raise RejectedImage("unsupported", "a preview alone, whose picture is not read")
    if len(pages) > 1:
        pages = _largest(image, pages)
    if len(pages) > 1:
        raise _several(len(pages))
    if image.tell() != pages[0]:
        image.seek(pages[0])


def _is_marked(image: TiffImageFile, number: int) -> bool:
    if image.tell() != number:
        image.seek(number)
    tags = _tags(image)
    kind = tags.get(_KIND, 0)
    return bool(isinstance(kind, int) and kind & _REDUCED_OR_MASK) or tags.get(_OLD_KIND) == _OLD_REDUCED


def _largest(image: TiffImageFile, pages: list[int]) -> list[int]:
    """These pages without unmarked thumbnails of the largest."""
    sizes = []
    for page in pages:
        image.seek(page)
        sizes.append(image.size)
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    return [page for page, size in zip(pages, sizes, strict=True) if not _is_thumbnail(size, width, height)]


def _is_thumbnail(size: tuple[int, int], width: int, height: int) -> bool:
    if size[0] * _THUMBNAIL > width or size[1] * _THUMBNAIL > height:
        return False
    return abs(size[0] * height / (size[1] * width) - 1) <= _SHAPE_TOLERANCE


def _tags(image: TiffImageFile) -> ImageFileDirectory_v2:
    return image.tag_v2


def _several(count: int) -> RejectedImage:
    return RejectedImage("multi_frame", f"{count} frames, one radiograph has one")

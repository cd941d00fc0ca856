"""Labelled images in folders of splits and classes, on a disk, in a bucket, in a tar or zip."""

import logging
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from pneumonia_core.archives.classify import classify_name
from pneumonia_core.archives.entries import ImageRef, ListedImage
from pneumonia_core.archives.skipped import SkipReason
from pneumonia_core.datasets.folder_names import (
    CLASS_FOLDERS,
    SPLITS,
    Place,
    place_of,
    split_of_folder,
)
from pneumonia_core.datasets.folder_paths import file_paths
from pneumonia_core.datasets.kermany import LabelledImage, parse_kermany_name, parse_name_in_class_folder
from pneumonia_core.errors import InvalidInput
from pneumonia_core.imaging.formats import IMAGE_SUFFIXES
from pneumonia_core.storage.location import Location

_log = logging.getLogger(__name__)

# Patient and follow-up of a file of ChestX-ray14 (Wang et al., CVPR 2017).
_CHESTXRAY14: Final = re.compile(r"^(\d{8})_\d{3}$")
_FOLDERS_BY_LABEL: Final = {label: name for name, label in CLASS_FOLDERS.items()}
_ORDER: Final = list(_FOLDERS_BY_LABEL)
_CLASSES: Final = ", ".join(CLASS_FOLDERS)


def read_class_folders(folder: Location) -> list[LabelledImage]:
    """The labelled images of a folder `train|val|test / NORMAL|PNEUMONIA|BACTERIA|VIRUS / file`.

    The folder may be that of one split. The two levels may lie deeper, or the other way round; names of
    splits and classes are those of `folder_names`. Images come by split, class and name. Where no name is one
    of Kermany's, the folder says the class, and each image counts as of a patient of its own unless its name
    is one of ChestX-ray14's.

    Raises InvalidInput where there is none, where images would be left out or counted twice, where some names
    say class and patient and others do not, and where a folder cannot be read; PneumoniaError where the
    storage fails.
    """
    files = [_File(path, ImageRef(folder.child(path).uri)) for path in file_paths(folder)]
    return _read(folder.uri, files, split_of_folder(folder.name))


def read_class_members(container: str, members: Iterable[ListedImage]) -> list[LabelledImage]:
    """The labelled images of a tar or zip that holds the folders of `read_class_folders`, in their order."""
    files = (
        _File(
            # Zips of Windows may have backslashes between folders.
            member.uri.removeprefix(f"{container}!/").replace("\\", "/"),
            ImageRef(member.uri, member.source, member.size_bytes),
            member.version,
        )
        for member in members
    )
    return _read(container, files, None)


@dataclass(frozen=True)
class _File:
    """A file by its `path` beneath the data set."""

    path: str
    ref: ImageRef
    version: str | None = None

    @property
    def folder(self) -> str:
        return self.path.rpartition("/")[0]


@dataclass(frozen=True)
class _ClassFile:
    """An image in the folders of a split and a class."""

    file: _File
    place: Place
    split: str
    label: int

    @property
    def key(self) -> tuple[int, int, str]:
        """By split, class and name: what a copy of it has too."""
        return SPLITS.index(self.split), _ORDER.index(self.label), self.place.rest

    @property
    def stem(self) -> str:
        return PurePosixPath(self.place.rest).stem


def _read(data: str, files: Iterable[_File], own_split: str | None) -> list[LabelledImage]:
    images, outside = [], []
    for file in _image_files(data, files):
        placed = _placed(data, file, own_split)
        if placed is None:
            outside.append(file)
        else:
            images.append(placed)
    if not images:
        raise InvalidInput(
            f"{data}: no labelled images in it. Expected train/NORMAL, train/PNEUMONIA and so on, or give a "
            "labels table (.parquet or .csv)."
        )
    if outside:
        _log.warning(
            "%d images of %s are in no folder of a split and class and are left out, such as %s.",
            len(outside),
            data,
            outside[0].path,
        )
    images = _without_copies(data, images)
    _check_spelling(data, images)
    return _labelled(sorted(images, key=lambda image: image.key))


def _image_files(data: str, files: Iterable[_File]) -> Iterator[_File]:
    """Those whose names are of images; tells of others that may be images too."""
    unread = []
    for file in files:
        if PurePosixPath(file.path).suffix.lower() in IMAGE_SUFFIXES:
            yield file
        elif classify_name(file.path.rpartition("/")[2]) is not SkipReason.NO_IMAGE:
            unread.append(file)
    if unread:
        _log.warning(
            "%d files of %s are left out, because their names do not end like those of images, such as %s.",
            len(unread),
            data,
            unread[0].path,
        )


def _placed(data: str, file: _File, own_split: str | None) -> _ClassFile | None:
    """The image with the split and class of its folders; None where they say neither.

    Raises InvalidInput where they say one of the two only, or contradict each other.
    """
    place = place_of(file.path)
    try:
        split, label = place.split or own_split, place.label
    except ValueError:
        raise InvalidInput(
            f"{data}: the folders of {file.folder} contradict each other. Leave one split and one class in "
            "the path of each image."
        ) from None
    if label is None and not place.splits:
        return None
    if label is None:
        raise InvalidInput(
            f"{data}: {file.folder} holds images, and no folder in it has the name of a class ({_CLASSES}). "
            "Rename it or move it away: without it, images would be missing."
        )
    if split is None:
        raise InvalidInput(
            f"{data}: {file.folder} has a class, but no folder's name says of which split: call one train, "
            "val or test, or move it away."
        )
    return _ClassFile(file, place, split, label)


def _without_copies(data: str, images: list[_ClassFile]) -> list[_ClassFile]:
    """Those of the outermost data set: the published zip holds a second copy of itself deeper inside.

    Raises InvalidInput where another set in it has images of its own.
    """
    by_root: dict[str, list[_ClassFile]] = defaultdict(list)
    for image in images:
        by_root[image.place.root].append(image)
    outermost = min(by_root, key=lambda root: (len(PurePosixPath(root).parts), root))
    known = {image.key for image in by_root[outermost]}
    for root, inner in by_root.items():
        if root == outermost:
            continue
        is_inside = not outermost or root.startswith(f"{outermost}/")
        if not is_inside or not known.issuperset(image.key for image in inner):
            raise InvalidInput(
                f"{data} holds several data sets: {outermost or 'its own folders'} and {root}. Give one of "
                "them, or move the other away."
            )
        _log.warning("%s/%s is a copy of what is above it, and is left out.", data, root)
    return by_root[outermost]


def _check_spelling(data: str, images: Sequence[_ClassFile]) -> None:
    """Raise InvalidInput where folders of one set are named in two ways, as if they were of two.

    Tells of a split under a name that is not its usual one.
    """
    styles = Counter(_style(name) for image in images for name in image.place.labels)
    for image in images:
        for name in image.place.labels:
            if len(styles) > 1 and _style(name) != _usual(styles):
                raise InvalidInput(
                    f"{data}: the folder {name}/ is in other letters than those of the other classes, so "
                    f"that they may be of different data sets. Write all of {_CLASSES} in the same."
                )
    names: dict[str, set[str]] = defaultdict(set)
    for image in images:
        for name, split in image.place.splits.items():
            names[split].add(name)
    for split, spelt in names.items():
        if len(spelt) > 1:
            raise InvalidInput(
                f"{data}: {' and '.join(sorted(spelt))} both say the split {split}. Join them, or move one "
                "away."
            )
        if split not in spelt:
            _log.warning("%s/ of %s is read as the split %s.", *spelt, data, split)


def _style(name: str) -> str:
    """`upper`, `lower` or `mixed` letters."""
    return "upper" if name.isupper() else "lower" if name.islower() else "mixed"


def _usual(styles: Counter[str]) -> str:
    """The style that the data set is published in, else the most frequent."""
    return "upper" if "upper" in styles else styles.most_common(1)[0][0]


def _labelled(images: Sequence[_ClassFile]) -> list[LabelledImage]:
    """These images, labelled by their names or, if none is a Kermany name, by their folders."""
    named = any(parse_kermany_name(image.stem) is not None for image in images)
    if not named:
        _report_unknown_patients(images)
    return [_labelled_by_name(image) if named else _labelled_by_folder(image) for image in images]


def _labelled_by_name(image: _ClassFile) -> LabelledImage:
    parsed = parse_name_in_class_folder(image.stem, image.label)
    if parsed is None:
        raise InvalidInput(
            f"{image.file.ref.uri!r}: the name does not say class and patient as Kermany names do "
            "(IM-0115-0001.jpeg, person1_bacteria_1.jpeg, BACTERIA-7422-0001.jpeg), and other names here do. "
            "Give a labels table with the columns uri, label, patient_id, split instead."
        )
    return LabelledImage(image.file.ref, *parsed, image.split, image.file.version)


def _labelled_by_folder(image: _ClassFile) -> LabelledImage:
    found = _CHESTXRAY14.match(image.stem)
    path = PurePosixPath(_FOLDERS_BY_LABEL[image.label], image.place.rest)
    patient = found[1] if found else str(path.with_suffix(""))
    return LabelledImage(image.file.ref, image.label, patient, image.split, image.file.version)


def _report_unknown_patients(images: Sequence[_ClassFile]) -> None:
    unknown = sum(_CHESTXRAY14.match(image.stem) is None for image in images)
    if unknown:
        _log.warning(
            "%d of %d file names do not tell the patient: each image counts as a patient of its own. If "
            "patients have several, give a labels table with the columns uri, label, patient_id, split.",
            unknown,
            len(images),
        )

"""The Kermany data set of paediatric chest X-rays: its folders, and class and patient in its file names.

Kermany, Zhang, Goldbaum, "Large Dataset of Labeled Optical Coherence Tomography (OCT) and Chest X-Ray
Images", Mendeley Data, 2018.
"""

import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from pneumonia_core.archives.entries import ImageRef, ListedImage
from pneumonia_core.errors import InvalidInput
from pneumonia_core.findings import BACTERIAL, NORMAL, PNEUMONIA_UNKNOWN_KIND, VIRAL
from pneumonia_core.imaging.formats import IMAGE_SUFFIXES
from pneumonia_core.storage.errors import error_text
from pneumonia_core.storage.files import list_names
from pneumonia_core.storage.location import Location

_log = logging.getLogger(__name__)

DATA_SETS: Final = ("kermany", "synthetic", "other")
# Ages in years of the patients of the data sets that are known by name. Kermany, Zhang, Goldbaum 2018:
# "pediatric patients of one to five years old".
KNOWN_AGES_YEARS: Final = {"kermany": (1.0, 5.0)}
SPLITS: Final = ("train", "val", "test")
_PNEUMONIA = re.compile(r"^(person(\d+)_(bacteria|virus))_(\d+)(?:_\d+)*$")
_NORMAL = re.compile(r"^((?:NORMAL2-)?IM-\d+)(?:-\d+)+$")
# A second naming under which the data set is distributed.
_BY_KIND = re.compile(r"^((NORMAL|BACTERIA|VIRUS)-\d+)-\d+$")
_CLASS_FOLDERS: Final = ("NORMAL", "PNEUMONIA")
# Patient and follow-up of a file of ChestX-ray14 (Wang et al., CVPR 2017).
_CHESTXRAY14: Final = re.compile(r"^(\d{8})_\d{3}$")
# In a bucket each costs six requests.
_FOLDERS_SEARCHED: Final = 50
_MEMBER = re.compile(
    r"^(?P<root>.*/)?(?P<split>train|val|test)/(?P<kind>NORMAL|PNEUMONIA)/(?P<name>[^/]+)$", re.S
)
_KINDS = {"NORMAL": NORMAL, "BACTERIA": BACTERIAL, "VIRUS": VIRAL}
# The files of a kind have consecutive numbers, patient after patient. In the train split, from the eightieth
# patient on, the file's number is 2.5 to 4.7 times the patient's for bacterial images, and 1.6 to 2.1 times
# for viral ones.
_COUNTED_FROM: Final = 80
_FILES_PER_PATIENT: Final = {BACTERIAL: (2.4, 5.0), VIRAL: (1.6, 2.15)}


@dataclass(frozen=True)
class LabelledImage:
    """An image with its ground truth.

    `ref` says where its bytes are, `label` is an index into findings.LABELS. `version` changes when the
    content does; None where only the storage of the file knows it.
    """

    ref: ImageRef
    label: int
    patient_id: str
    split: str
    version: str | None = None

    @property
    def uri(self) -> str:
        return self.ref.uri


def parse_kermany_name(stem: str) -> tuple[int, str] | None:
    """Class index and patient of a Kermany file name without its suffix; None for any other name.

    The numbering restarts between `person1_bacteria` and `person1_virus`. These are different children, so
    the patient key keeps the kind.
    """
    if found := _PNEUMONIA.match(stem):
        return (BACTERIAL if found[3] == "bacteria" else VIRAL), found[1]
    if found := _NORMAL.match(stem):
        return NORMAL, found[1]
    if found := _BY_KIND.match(stem):
        return _KINDS[found[2]], found[1]
    return None


def parse_name_in_class_folder(stem: str, is_normal: bool) -> tuple[int, str] | None:
    """As `parse_kermany_name`, of a file in the folder of a class; None also where the two contradict."""
    parsed = parse_kermany_name(stem)
    return None if parsed is None or (parsed[0] == NORMAL) != is_normal else parsed


def are_kermanys(paths: Iterable[str]) -> bool:
    """Whether all these files are of the Kermany data set, or of any part of it, by their names.

    Every name must be a Kermany name. At least one must be a name that other data do not have: of the second
    series of normal images, of the second naming, or with the published numbers. Phantoms, and other data
    that are renamed to fit the folder layout, have other numbers.
    """
    stems = [PurePosixPath(path).stem for path in paths]
    if any(parse_kermany_name(stem) is None for stem in stems):
        return False
    return any(
        stem.startswith("NORMAL2-") or _BY_KIND.match(stem) for stem in stems
    ) or _are_numbered_as_published(stems)


def _are_numbered_as_published(stems: list[str]) -> bool:
    """Whether files of both kinds have the published numbers, judged by patients with high numbers."""
    judged = set()
    for found in filter(None, map(_PNEUMONIA.match, stems)):
        label, patient, file = (BACTERIAL if found[3] == "bacteria" else VIRAL), int(found[2]), int(found[4])
        if patient < _COUNTED_FROM:
            continue
        low, high = _FILES_PER_PATIENT[label]
        if not low * patient <= file <= high * patient:
            return False
        judged.add(label)
    return judged == {BACTERIAL, VIRAL}


def known_data_set(paths: Iterable[str]) -> str:
    """`kermany` if all file names are those of the Kermany data set (`are_kermanys`), else `other`."""
    return "kermany" if are_kermanys(paths) else "other"


def read_kermany_folder(folder: Location) -> list[LabelledImage]:
    """The labelled images of a folder `train|val|test / NORMAL|PNEUMONIA / file`, or of one split's folder.

    They come by split, class and name. Where no name is one of Kermany's, the folder says the class: the kind
    of pneumonia is unknown, and each image counts as of a patient of its own unless its name is one of
    ChestX-ray14's. Raises InvalidInput where there is none, where some names say class and patient and others
    do not, and where a folder cannot be read; PneumoniaError where the storage fails.
    """
    images = _labelled(
        _ClassFile(ImageRef(location.child(name).uri), name, split, kind)
        for split, kind, location in _class_folders(folder)
        for name in _names(location)
        if _is_image_name(name)
    )
    if not images:
        raise InvalidInput(f"{folder.uri}: no labelled images in it. {_what_to_give_instead(folder)}")
    return images


def read_kermany_members(container: str, members: Iterable[ListedImage]) -> list[LabelledImage]:
    """The labelled images of a tar or zip that holds the folders of `read_kermany_folder`, in their order.

    The folders may lie in others, as `chest_xray/train/NORMAL`; the outermost ones count, because the
    published zip holds a second copy deeper inside. Raises InvalidInput.
    """
    found: dict[str, list[tuple[str, str, str, ListedImage]]] = {}
    for member in members:
        match = _MEMBER.match(member.uri.removeprefix(f"{container}!/"))
        if match and _is_image_name(match["name"]):
            entry = (match["split"], match["kind"], match["name"], member)
            found.setdefault(match["root"] or "", []).append(entry)
    if not found:
        raise InvalidInput(
            f"{container}: no labelled images in it. Expected members such as train/NORMAL/IM-0115-0001.jpeg."
        )
    outermost = min(found, key=lambda root: (root.count("/"), root))
    return _labelled(
        _ClassFile(ImageRef(member.uri, member.source, member.size_bytes), name, split, kind, member.version)
        for split, kind, name, member in sorted(
            found[outermost], key=lambda entry: (SPLITS.index(entry[0]), *entry[1:3])
        )
    )


@dataclass(frozen=True)
class _ClassFile:
    """An image in the folder `kind` (NORMAL or PNEUMONIA) of a split."""

    ref: ImageRef
    name: str
    split: str
    kind: str
    version: str | None = None

    @property
    def stem(self) -> str:
        return PurePosixPath(self.name).stem


def _labelled(files: Iterable[_ClassFile]) -> list[LabelledImage]:
    """The images of these files, labelled by their names or, if none is a Kermany name, by their folders."""
    files = list(files)
    named = any(parse_kermany_name(file.stem) is not None for file in files)
    if files and not named:
        _report_unknown_patients(files)
    return [_labelled_by_name(file) if named else _labelled_by_folder(file) for file in files]


def _labelled_by_name(file: _ClassFile) -> LabelledImage:
    parsed = parse_name_in_class_folder(file.stem, file.kind == "NORMAL")
    if parsed is None:
        raise InvalidInput(
            f"{file.ref.uri!r}: the name does not say class and patient as Kermany names do "
            "(IM-0115-0001.jpeg, person1_bacteria_1.jpeg, BACTERIA-7422-0001.jpeg), and other names here do. "
            "Give a labels table with the columns uri, label, patient_id, split instead."
        )
    return LabelledImage(file.ref, *parsed, file.split, file.version)


def _labelled_by_folder(file: _ClassFile) -> LabelledImage:
    label = NORMAL if file.kind == "NORMAL" else PNEUMONIA_UNKNOWN_KIND
    found = _CHESTXRAY14.match(file.stem)
    patient = found[1] if found else f"{file.kind}/{file.stem}"
    return LabelledImage(file.ref, label, patient, file.split, file.version)


def _report_unknown_patients(files: list[_ClassFile]) -> None:
    unknown = sum(_CHESTXRAY14.match(file.stem) is None for file in files)
    if unknown:
        _log.warning(
            "%d of %d file names do not tell the patient: each image counts as a patient of its own. If "
            "patients have several, give a labels table with the columns uri, label, patient_id, split.",
            unknown,
            len(files),
        )


def _is_image_name(name: str) -> bool:
    return not name.startswith(".") and PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def _class_folders(folder: Location) -> Iterator[tuple[str, str, Location]]:
    """Split, kind and location of each folder that may hold images. `folder` may be that of one split."""
    roots = [(split, folder.child(split)) for split in SPLITS]
    name = folder.uri.rpartition("/")[2]
    if name in SPLITS:
        roots.append((name, folder))
    for split, root in roots:
        for kind in _CLASS_FOLDERS:
            yield split, kind, root.child(kind)


def _names(folder: Location) -> list[str]:
    """The names in a folder, sorted; empty where there is no such folder."""
    try:
        return list_names(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise InvalidInput(
            f"{folder.uri}: this folder of images cannot be read ({error_text(error)}). Fix that, or move it "
            "away: without it a class would be missing."
        ) from error
    except UnicodeError as error:
        raise InvalidInput(
            f"{folder.uri}: the name of a file in it is not UTF-8. Rename that file."
        ) from error


def _what_to_give_instead(folder: Location) -> str:
    if any(_names(folder.child(kind)) for kind in _CLASS_FOLDERS):
        return "It has the classes, but its name does not say of which split: call it train, val or test."
    for name in _names(folder)[:_FOLDERS_SEARCHED]:
        inner = folder.child(name)
        if any(_names(location) for _, _, location in _class_folders(inner)):
            return f"They are in {inner.uri}: give that."
    return "Expected train/NORMAL, train/PNEUMONIA and so on, or give a labels table (.parquet or .csv)."

"""What names of folders say about the images in them: their split, and their class."""

from dataclasses import dataclass
from typing import Final, TypeVar

from pneumonia_core.findings import BACTERIAL, NORMAL, PNEUMONIA_UNKNOWN_KIND, VIRAL

SPLITS: Final = ("train", "val", "test")
_SPLITS_BY_NAME: Final = {
    **{split: split for split in SPLITS},
    "training": "train",
    "valid": "val",
    "validation": "val",
    "testing": "test",
}
# As they are published; in this order.
CLASS_FOLDERS: Final = {
    "NORMAL": NORMAL,
    "PNEUMONIA": PNEUMONIA_UNKNOWN_KIND,
    "BACTERIA": BACTERIAL,
    "VIRUS": VIRAL,
}
_LABELS_BY_NAME: Final = {
    **{name.lower(): label for name, label in CLASS_FOLDERS.items()},
    "bacterial": BACTERIAL,
    "viral": VIRAL,
}
_Said = TypeVar("_Said", str, int)
_PNEUMONIA: Final = frozenset((PNEUMONIA_UNKNOWN_KIND, BACTERIAL, VIRAL))


def split_of_folder(name: str) -> str | None:
    """The split that a folder of this name holds, in letters of either case; None for any other name."""
    return _SPLITS_BY_NAME.get(name.lower())


def label_of_folder(name: str) -> int | None:
    """The label, an index into findings.LABELS, that a folder of this name holds; None for any other name."""
    return _LABELS_BY_NAME.get(name.lower())


@dataclass(frozen=True)
class Place:
    """What the folders of a path say, and its other parts: the `root` above them, and the `rest` below it.

    `splits` and `labels` are the names of the folders that say it, each with what it says.
    """

    root: str
    splits: dict[str, str]
    labels: dict[str, int]
    rest: str

    @property
    def split(self) -> str | None:
        """The split; None where no folder says one. Raises ValueError where two contradict."""
        return _only(set(self.splits.values()))

    @property
    def label(self) -> int | None:
        """The label; None where no folder says one. Raises ValueError where two contradict.

        A kind of pneumonia may be in a folder of pneumonia.
        """
        said = set(self.labels.values())
        return _only(said - {PNEUMONIA_UNKNOWN_KIND} if len(said) > 1 and said <= _PNEUMONIA else said)


def place_of(path: str) -> Place:
    """The place of a file by its path beneath a data set, such as `chest_xray/train/NORMAL/a.jpeg`."""
    *folders, name = (part for part in path.split("/") if part not in ("", "."))
    splits = {folder: split for folder in folders if (split := split_of_folder(folder))}
    labels = {folder: label for folder in folders if (label := label_of_folder(folder)) is not None}
    known = [number for number, folder in enumerate(folders) if folder in splits or folder in labels]
    depth = known[0] if known else len(folders)
    below = (folder for folder in folders[depth:] if folder not in splits and folder not in labels)
    return Place("/".join(folders[:depth]), splits, labels, "/".join((*below, name)))


def _only(said: set[_Said]) -> _Said | None:
    if len(said) > 1:
        raise ValueError("folders contradict each other")
    return next(iter(said), None)

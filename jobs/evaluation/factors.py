"""What the images of a labelled set are grouped by: columns of its table, or what DICOM says of a patient."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pneumonia_core.archives.manifests import (
    SOURCE_AGE_COLUMN,
    SOURCE_MODE_COLUMN,
    SOURCE_SEX_COLUMN,
    is_manifest,
)
from pneumonia_core.archives.tables.table_files import column_names
from pneumonia_core.datasets.kermany import LabelledImage
from pneumonia_core.datasets.labelled import read_columns, read_labelled
from pneumonia_core.errors import InvalidInput
from pneumonia_core.evaluation.groups.factors import groups_of
from pneumonia_core.evaluation.table_scores import Row

_FROM_DICOM: Final = {"sex": SOURCE_SEX_COLUMN, "age": SOURCE_AGE_COLUMN}


@dataclass(frozen=True)
class Factors:
    """`names` in the order asked for.

    `known` has the values of each image, by name. `filled` has, by name, the column of the results table that
    scoring fills.
    """

    names: tuple[str, ...]
    known: Mapping[str, Sequence[object]]
    filled: Mapping[str, str]

    @property
    def carried(self) -> tuple[str, ...]:
        """The columns that scoring must fill."""
        return (SOURCE_MODE_COLUMN, *self.filled.values())

    def values(self, rows: Sequence[Row]) -> dict[str, Sequence[object]]:
        """By factor the value of each image, whose `rows` of the results table come in its order."""
        return {
            name: self.known[name] if name in self.known else [row.get(self.filled[name]) for row in rows]
            for name in self.names
        }


def find_factors(by: str | None, data: str, images: Sequence[LabelledImage]) -> Factors:
    """The factors that `by` names, divided by commas, for `images` of the labelled set `data`.

    A column of a labels table comes first. Raises InvalidInput where a factor is neither a column nor one of
    DICOM's, or has too many groups.
    """
    names = tuple(dict.fromkeys(name.strip() for name in (by or "").split(",") if name.strip()))
    columns = set(column_names(data)) if names and is_manifest(data) else set()
    unknown = [name for name in names if name not in columns and name not in _FROM_DICOM]
    if unknown:
        raise InvalidInput(
            f"cannot group by {', '.join(map(repr, unknown))}: {data} is not a table with such a column, and "
            f"DICOM files give {' and '.join(_FROM_DICOM)} only. Name a column of a labels table."
        )
    in_table = [name for name in names if name in columns]
    known = _values_of(images, data, in_table) if in_table else {}
    for name, values in known.items():
        groups_of(name, values)
    return Factors(names, known, {name: _FROM_DICOM[name] for name in names if name not in columns})


def _values_of(
    images: Sequence[LabelledImage], data: str, columns: Sequence[str]
) -> dict[str, Sequence[object]]:
    places = {image.uri: place for place, image in enumerate(read_labelled(data))}
    chosen = [places[image.uri] for image in images]
    return {name: [values[place] for place in chosen] for name, values in read_columns(data, columns).items()}

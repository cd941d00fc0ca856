"""Which of the evaluated images the model has seen."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from pneumonia_core.bundles.bundle import Bundle
from pneumonia_core.bundles.training_images import read_training_images
from pneumonia_core.evaluation.document import SeenImages
from pneumonia_core.evaluation.table_scores import Row

EXAMPLES: Final = 20


def find_seen_images(rows: Sequence[Row], bundle: Bundle) -> SeenImages | None:
    """The scored images of these `rows` that the model has seen; None where the bundle does not say."""
    known = read_training_images(bundle)
    if known is None:
        return None
    parts = {
        row["image_uri"]: known.part_of(row["image_sha256"]) for row in rows if row["status"] == "scored"
    }
    counts = Counter(parts.values())
    return {
        "training": counts["training"],
        "validation": counts["validation"],
        "examples": [uri for uri, part in parts.items() if part is not None][:EXAMPLES],
    }

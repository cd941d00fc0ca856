"""What an evaluation is asked to do."""

from dataclasses import dataclass
from typing import Final

# Their pictures keep the page below a megabyte.
MOST_EXPLAINED: Final = 12


@dataclass(frozen=True)
class EvaluateOptions:
    """The options of `pneumonia evaluate`.

    `by` names what the images are grouped by, divided by commas. `prevalence` is the share of pneumonia that
    the figures are weighted to, None for that of the images. `robustness` is the number of images that are
    perturbed, `explanations` that of the mistakes that the page shows; 0 for none.
    """

    model: str
    data: str
    output: str
    split: str = "test"
    engine: str = "auto"
    precision: str = "auto"
    by: str | None = None
    prevalence: float | None = None
    bootstrap: int = 1000
    robustness: int = 400
    explanations: int = MOST_EXPLAINED
    address: str | None = None
    num_cpus: int | None = None

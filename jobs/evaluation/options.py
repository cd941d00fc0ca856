"""What an evaluation is asked to do."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EvaluateOptions:
    """The options of `pneumonia evaluate`.

    `prevalence` is the share of pneumonia that the figures are weighted to, None for that of the images.
    `robustness` is the number of images that are perturbed, 0 for none.
    """

    model: str
    data: str
    output: str
    split: str = "test"
    engine: str = "auto"
    precision: str = "auto"
    prevalence: float | None = None
    bootstrap: int = 1000
    robustness: int = 400
    address: str | None = None
    num_cpus: int | None = None

"""The keys of comparison.json."""

from typing import TypedDict

from pneumonia_core.evaluation.document import BootstrapFacts, Measure


class Difference(TypedDict):
    """A measure of both models, and `difference`, the second less the first."""

    measure: str
    first: float | None
    second: float | None
    difference: Measure


class McNemar(TypedDict):
    """Images on which one model alone is right; `p_value` is null where there are none."""

    question: str
    first_alone_right: int
    second_alone_right: int
    p_value: float | None


class Comparison(TypedDict):
    """Two models, by model_id, on the images that both could score."""

    first: str
    second: str
    images: int
    patients: int
    scored_by_one_alone: int
    bootstrap: BootstrapFacts
    differences: list[Difference]
    mcnemar: list[McNemar]


class Comparisons(TypedDict):
    """The content of comparison.json: every pair of models."""

    split: str
    pairs: list[Comparison]

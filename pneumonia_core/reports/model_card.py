"""The model card, under the headings of Mitchell et al., 'Model Cards for Model Reporting' (FAT* 2019)."""

from collections.abc import Mapping
from typing import NotRequired, TypedDict

from pneumonia_core.calibration import Calibration
from pneumonia_core.datasets.kermany import DATA_SETS, WRONG_KINDS
from pneumonia_core.evaluation.document import Evaluation
from pneumonia_core.findings import CLASSES
from pneumonia_core.imaging.contract import JPEG_QUALITY, SMOOTHING
from pneumonia_core.reports.checklist import reporting_items
from pneumonia_core.reports.evaluation_page import CALIBRATION_MEASURES, MEASURES, stated_prevalence
from pneumonia_core.reports.hub_metadata import front_matter
from pneumonia_core.reports.render import render_markdown


class Recalibration(TypedDict):
    """What a model was recalibrated on: the `bundle` that it comes from, by model_id, and its local images.

    `sensitivity` is the one that was asked for, `prevalence` the share of pneumonia that probabilities hold
    for, null for that of the images.
    """

    bundle: str
    images: int
    patients: int
    sensitivity: float | None
    prevalence: float | None


class CardFacts(TypedDict):
    """What the card says of a model besides its evaluation; the optional values may be None.

    - `image_size`: side of the network's square in pixels
    - `version`: that of this package
    - `weights`: what training started from, such as "imagenet" or "none"
    - `members`: number of networks whose answers the model averages
    - `mirror`: whether it also averages the mirrored image
    - `smoothing`: that of `prefilter.smooth`
    - `ages_years`: ages of the youngest and the oldest training patient
    - `data_set`: one of `kermany.DATA_SETS`; it decides what the card says about origin, licence and limits
    - `class_weights`: by class, the weight of a training image in the loss
    - `training`: further facts of the training by name (recipe, number of images and patients, seconds)
    - `recalibration`: where the model is another one fitted to local images
    - `evaluated_on`: the images of the evaluation, such as "validation patients, cut from train". If it
      contains "validation", the card says that they were chosen on and measure no quality
    """

    network: str
    image_size: int
    model_id: NotRequired[str | None]
    version: NotRequired[str | None]
    calibration: NotRequired[Calibration | None]
    members: NotRequired[int]
    mirror: NotRequired[bool]
    smoothing: NotRequired[float]
    data_fingerprint: NotRequired[str | None]
    date: NotRequired[str | None]
    weights: NotRequired[str | None]
    ages_years: NotRequired[tuple[float, float] | None]
    data_set: NotRequired[str]
    class_weights: NotRequired[Mapping[str, float] | None]
    training: NotRequired[Mapping[str, object]]
    recalibration: NotRequired[Recalibration | None]
    evaluated_on: NotRequired[str]


def model_card(facts: CardFacts, evaluation: Evaluation) -> str:
    """The model card as Markdown, with front matter for the Hugging Face Hub."""
    data_set = facts.get("data_set", "other")
    data_set = data_set if data_set in DATA_SETS else "other"
    evaluated_on = facts.get("evaluated_on", "held-back images")
    chosen_on = "validation" in evaluated_on
    name = "-".join(part for part in (facts["network"], facts.get("model_id")) if part)
    of_what = f"{evaluated_on} (chosen on these, so optimistic)" if chosen_on else evaluated_on
    return front_matter(name, data_set, of_what, evaluation) + render_markdown(
        "model_card.md",
        facts={
            "model_id": None,
            "version": None,
            "calibration": None,
            "members": 1,
            "mirror": False,
            "smoothing": SMOOTHING,
            "data_fingerprint": None,
            "date": None,
            "weights": None,
            "ages_years": None,
            "class_weights": None,
            "training": {},
            "recalibration": None,
            **facts,
            "evaluated_on": evaluated_on,
        },
        chosen_on=chosen_on,
        data_set=data_set,
        wrong_kinds=WRONG_KINDS.get(data_set),
        items=reporting_items(data_set),
        evaluation=evaluation,
        classes=CLASSES,
        jpeg_quality=JPEG_QUALITY,
        measures=MEASURES,
        calibration_measures=CALIBRATION_MEASURES,
        prevalence=stated_prevalence(evaluation),
    )

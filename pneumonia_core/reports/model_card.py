"""The model card, under the headings of Mitchell et al., 'Model Cards for Model Reporting' (FAT* 2019)."""

from typing import Any

from pneumonia_core.datasets.kermany import DATA_SETS
from pneumonia_core.findings import CLASSES
from pneumonia_core.imaging.contract import JPEG_QUALITY
from pneumonia_core.reports.checklist import reporting_items
from pneumonia_core.reports.evaluation_page import CALIBRATION_MEASURES, MEASURES, stated_prevalence
from pneumonia_core.reports.render import render_markdown


def model_card(facts: dict[str, Any], evaluation: dict[str, Any]) -> str:
    """The model card as Markdown.

    `facts`, all but the first two optional:
    - `network`, `image_size` (pixels)
    - `model_id`, `version` (of this package), `temperature`, `data_fingerprint`, `date`
    - `weights`: what training started from, such as "imagenet" or "none"
    - `ages_years`: those of the youngest and the oldest training patient
    - `data_set`: "kermany", "synthetic" or "other" (see `known_data_set`); it decides what the card says
      about origin, licence and limits
    - `class_weights`: {class: weight} by which the loss of a training image counts
    - `training`: {name: value}, listed as it is (recipe, number of images and patients, seconds)
    - `evaluated_on`: which images the evaluation is of, such as "validation patients, cut from train"; where
      it speaks of validation, the card says that thresholds and calibration were fitted on these images

    `evaluation` is that of `metrics.evaluate`.
    """
    data_set = facts.get("data_set", "other")
    data_set = data_set if data_set in DATA_SETS else "other"
    return render_markdown(
        "model_card.md",
        facts={
            "model_id": None,
            "version": None,
            "temperature": None,
            "data_fingerprint": None,
            "date": None,
            "weights": None,
            "ages_years": None,
            "class_weights": None,
            "training": {},
            "evaluated_on": "held-back images",
            **facts,
        },
        data_set=data_set,
        items=reporting_items(data_set),
        evaluation=evaluation,
        classes=CLASSES,
        jpeg_quality=JPEG_QUALITY,
        measures=MEASURES,
        calibration_measures=CALIBRATION_MEASURES,
        prevalence=stated_prevalence(evaluation),
    )

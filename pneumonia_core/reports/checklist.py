"""What TRIPOD+AI and CLAIM ask of a report on a model, and where ours answers: the model card's item table.

TRIPOD+AI: Collins et al., BMJ 2024;385:e078378. CLAIM, 2024 update: Tejani et al., Radiology: Artificial
Intelligence 2024;6(4):e240300.
"""

from typing import Any, Final

# Item, items of TRIPOD+AI, sections of CLAIM, where it is reported; the last may depend on the data set.
_EVERYWHERE: Final = (
    ("Title: prediction model, outcome, images", "1", "title", "this card’s title and disclaimer"),
    ("Abstract", "2", "abstract", "not applicable: a card has none; its first headings say the same"),
    ("Background, intended use and users", "3a–3c", "introduction", "Intended Use"),
    ("Objectives", "4", "introduction", "Intended Use"),
    ("Data preparation and quality checks", "7", "data",
     "Model Details (image contract); `pneumonia inspect` lists unreadable images, duplicates and cues"),
    ("Outcome and how it was assessed", "8a–8c", "ground truth", "Training Data; Ethical Considerations"),
    ("Predictors", "9a–9c", "data", "the pixels alone: Model Details"),
    ("Sample size", "10", "data partitions",
     "Evaluation Data; no size was calculated beforehand: all images of the data set were used"),
    ("Missing data", "11", "data",
     "images that cannot be read are left out and counted; no other value is used"),
    ("Partition of the data, by patient", "12a", "data partitions", "Training Data"),
    ("Model type, building, tuning, training", "12b–12c", "model, training", "Model Details; Training Data"),
    ("Heterogeneity between clusters", "12d", "evaluation",
     "not applicable: no site or device is recorded with the images"),
    ("Measures of performance and their uncertainty", "12e", "evaluation", "Metrics; Quantitative Analyses"),
    ("Recalibration, thresholds", "12f–12g", "model", "Model Details (calibration, Youden’s J)"),
    ("Class imbalance", "13", "training",
     "the loss is weighted by class: Training Data (class weights); "
     "no image was added or left out for it"),
    ("Fairness", "14", "evaluation", "Factors: what would be needed is not recorded with the images"),
    ("Output, finding and its thresholds", "15", "model", "Model Details"),
    ("Differences between development and evaluation", "16", "data partitions", "Evaluation Data"),
    ("Protocol, registration", "18c–18d", "other information",
     "not applicable: none was written or registered"),
    ("Availability of data and code", "18e–18f", "other information", "Training Data; the package’s README"),
    ("Patient and public involvement", "19", "–", "not applicable: there was none"),
    ("Participants and their characteristics", "20a–20c", "results: data", "Evaluation Data; Factors"),
    ("Images and patients in each analysis", "21", "results: data", "Evaluation Data; Training Data"),
    ("Model: full specification for prediction", "22", "model",
     "the bundle itself (bundle.json, model.keras)"),
    ("Model performance with intervals, by group", "23a–23b", "results: performance",
     "Quantitative Analyses; by group and under perturbation in the page of `pneumonia evaluate`"),
    ("Failure analysis", "23a", "results: performance",
     "confusion matrix: Quantitative Analyses; the worst mistakes: page of `pneumonia evaluate`; "
     "no image was reviewed by a radiologist"),
    ("Model updating", "24", "–", "not applicable: a new training writes a new bundle"),
    ("Interpretation and limitations", "25–26", "discussion", "Caveats and Recommendations"),
    ("Usability: poor or unavailable input, expertise", "27a–27c", "discussion",
     "Intended Use; rejected images carry their reason in the results table"),
    ("Explainability", "–", "model",
     "coarse maps of the worst mistakes in the page of `pneumonia evaluate`; none belongs to a score"),
    ("External test", "–", "evaluation",
     "not applicable: no part of a training; "
     "`pneumonia evaluate` does it on labelled images of another hospital"),
)  # fmt: skip
_OF_DATA: Final[dict[str, tuple[tuple[str, str, str, str], ...]]] = {
    "kermany": (
        ("Source of data, dates, setting, eligibility", "5a–6b", "data",
         "Training Data; dates of collection are not published with the images"),
        ("Treatments received", "6c", "data", "not applicable: not recorded with the images"),
        ("Ethical approval", "17", "other information", "not applicable: published data, no new patients"),
        ("Funding and conflicts of interest", "18a–18b", "other information",
         "those of the data: Cell 172, 2018"),
    ),
    "synthetic": (
        ("Source of data, dates, setting, eligibility", "5a–6b", "data", "Training Data: drawn by a program"),
        ("Treatments received", "6c", "data", "not applicable: no patients"),
        ("Ethical approval", "17", "other information", "not applicable: no patients"),
        ("Funding and conflicts of interest", "18a–18b", "other information", "not applicable: no study"),
    ),
    "other": (
        ("Source of data, dates, setting, eligibility", "5a–6b", "data",
         "theirs to state who trained the model: Training Data"),
        ("Treatments received", "6c", "data", "not applicable: not recorded with the images"),
        ("Ethical approval", "17", "other information", "theirs to state who trained the model"),
        ("Funding and conflicts of interest", "18a–18b", "other information",
         "theirs to state who trained the model"),
    ),
}  # fmt: skip


def reporting_items(data_set: str) -> list[dict[str, Any]]:
    """The rows {item, tripod, claim, where} for a model trained on `data_set` (see card.DATA_SETS), in the
    order of TRIPOD+AI's items; `where` is a heading of the card, or 'not applicable' with the reason.
    """
    rows = sorted((*_EVERYWHERE, *_OF_DATA[data_set]), key=lambda row: _first_number(row[1]))
    return [dict(zip(("item", "tripod", "claim", "where"), row, strict=True)) for row in rows]


def _first_number(items: str) -> int:
    digits = items.partition("–")[0].rstrip("abcdefg")
    return int(digits) if digits else 99

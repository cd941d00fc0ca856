"""The page of an evaluation: figures and tables of evaluation.json, in one file without script or link."""

from collections.abc import Mapping

from markupsafe import Markup

from pneumonia_core.evaluation.document import Evaluation
from pneumonia_core.findings import CLASSES, LABELS
from pneumonia_core.reports.explanations import Explanations
from pneumonia_core.reports.figures import (
    curves_figure,
    predictive_figure,
    reliability_figure,
    risk_coverage_figure,
)
from pneumonia_core.reports.render import render_html

MEASURES = {
    "auroc": "AUROC",
    "auprc": "AUPRC (average precision)",
    "accuracy": "Accuracy",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "sensitivity_at_specificity_90": "Sensitivity at 90 % specificity",
    "sensitivity_at_specificity_95": "Sensitivity at 95 % specificity",
}
CALIBRATION_MEASURES = {
    "slope": "Calibration slope (ideal 1)",
    "intercept": "Calibration intercept, fitted with the slope (ideal 0)",
    "ece": "Expected calibration error",
    "brier": "Brier score",
}
_TRAINED_ON = (
    "A model that was trained on this data set has seen most of these images: the figures say nothing about "
    "others."
)
CAUTIONS = {
    "train": _TRAINED_ON,
    "val": _TRAINED_ON,
    "validation": (
        "A model that was trained on this data set has its epoch, thresholds and calibration from these "
        "images: the figures are too good, and do not say how good the model is elsewhere."
    ),
}


def evaluation_page(
    evaluation: Evaluation,
    title: str,
    facts: Mapping[str, Mapping[str, object]] | None = None,
    explanations: Explanations | None = None,
) -> str:
    """One self-contained HTML page of an evaluation.

    It shows the keys that not every evaluation has where they are in it. `facts` are further
    tables by heading, such as {"Model": {"network": "resnet50", ...}, "Data": {...}}; names and values are
    escaped. `explanations` are the worst mistakes to show.
    """
    tasks = evaluation["tasks"]
    prevalence = stated_prevalence(evaluation)
    pneumonia, kind = tasks["pneumonia_vs_normal"], tasks["bacterial_vs_viral"]
    covered = evaluation.get("risk_coverage")
    defined = [task for task in (pneumonia, kind) if task["images"]]
    return render_html(
        "evaluation.html",
        title=title,
        facts=facts or {},
        evaluation=evaluation,
        pneumonia=pneumonia,
        kind=kind,
        classes=CLASSES,
        labels=LABELS,
        measures=MEASURES,
        calibration_measures=CALIBRATION_MEASURES,
        prevalence=prevalence,
        caution=CAUTIONS.get(evaluation.get("split", "")),
        seen=seen_words(evaluation),
        unknown_kind=evaluation["images_by_class"].get("pneumonia_unknown_kind", 0),
        heaviest={row["task"]: row for row in evaluation.get("heaviest_patients", [])},
        explanations=explanations,
        unscored=sum(evaluation.get("rejected", {}).values()),
        figures={
            "pneumonia": Markup(curves_figure(pneumonia, prevalence)),
            "kind": Markup(curves_figure(kind, kind["positives"] / kind["images"] if kind["images"] else 0)),
            "reliability": Markup(reliability_figure(defined)),
            "risk_coverage": Markup(risk_coverage_figure(covered)) if covered else "",
            "predictive": Markup(predictive_figure(evaluation["predictive_values"], prevalence)),
        },
    )


def seen_words(evaluation: Evaluation) -> str | None:
    """How many of the images the model has seen, in one sentence; None without any, or where it is not known.

    Of training's own images the caution says it.
    """
    seen = evaluation.get("seen_images")
    if not seen or not seen["training"] + seen["validation"] or evaluation.get("split") in CAUTIONS:
        return None
    return (
        f"Of these {evaluation['images']:,} images the model was trained on {seen['training']:,} and "
        f"calibrated or validated on {seen['validation']:,}, by the hash of the file."
    )


def page_facts(
    evaluation: Evaluation, data: str, network: str, image_size: int
) -> dict[str, dict[str, object]]:
    """The tables on model and data of the page of `pneumonia evaluate`."""
    domain = evaluation.get("domain")
    return {
        "Model": {
            "network": network,
            "model_id": evaluation.get("model_id"),
            "image size": f"{image_size} px",
            "engine": evaluation.get("engine"),
            "precision": evaluation.get("precision", "unknown"),
        },
        "Data": {
            "data set": data,
            "split": evaluation.get("split"),
            "images": evaluation["images"],
            "patients": evaluation["patients"],
            "could not be scored": sum(evaluation.get("rejected", {}).values()),
            **({"out of domain": f"{domain['flagged_share']:.1%}"} if domain else {}),
        },
    }


def stated_prevalence(evaluation: Evaluation) -> float:
    """The share of pneumonia that the figures apply to: the assumed one, else that of the images."""
    assumed = evaluation["prevalence"]["assumed"]
    return float(evaluation["prevalence"]["evaluated"] if assumed is None else assumed)

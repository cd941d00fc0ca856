"""The model card's front matter: what the Hugging Face Hub reads of a card, as YAML. Nothing is uploaded.

The keys are those of https://huggingface.co/docs/hub/model-cards and its model-index.
"""

from collections.abc import Iterator
from typing import Final, TypedDict

import yaml

from pneumonia_core.evaluation.document import Evaluation, Measure

_TAGS: Final = (
    "keras", "tensorflow", "openvino", "medical-imaging", "radiology", "chest-x-ray", "pneumonia", "resnet",
    "research-use-only",
)  # fmt: skip
_LICENCE: Final = (
    "# `license` is yours to add. It depends on the training images and on the weights that training\n"
    "# started from.\n"
)
# The Hub's names of metrics, and those of evaluation.json.
_METRICS: Final = {
    "roc_auc": ("auroc", "AUROC"),
    "accuracy": ("accuracy", "accuracy"),
    "recall": ("sensitivity", "sensitivity"),
    "specificity": ("specificity", "specificity"),
}
_ANSWERS: Final = {"pneumonia_vs_normal": "pneumonia or normal", "bacterial_vs_viral": "bacterial or viral"}


class Metric(TypedDict):
    type: str
    name: str
    value: float


def front_matter(name: str, data_set: str, evaluated_on: str, evaluation: Evaluation) -> str:
    """The YAML between two lines of dashes, for a model called `name`.

    `data_set` is one of `kermany.DATA_SETS`, `evaluated_on` says in words which images the figures are of.
    """
    result = {
        "task": {"type": "image-classification", "name": "pneumonia in chest X-rays"},
        "dataset": {"type": f"{data_set}-chest-x-rays", "name": evaluated_on},
        "metrics": list(_metrics(evaluation)),
    }
    metadata = {
        "library_name": "keras",
        "pipeline_tag": "image-classification",
        "tags": list(_TAGS),
        "model-index": [{"name": name, "results": [result]}],
    }
    text = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True, width=110)
    return f"---\n{_LICENCE}{text}---\n"


def _metrics(evaluation: Evaluation) -> Iterator[Metric]:
    """The defined ones of both questions and of the three classes; each name holds the 95 % interval."""
    for task_name, answers in _ANSWERS.items():
        task = evaluation["tasks"][task_name]
        measures: dict[str, Measure] = {
            "auroc": task["auroc"],
            "accuracy": task["accuracy"],
            "sensitivity": task["sensitivity"],
            "specificity": task["specificity"],
        }
        for kind, (key, label) in _METRICS.items():
            yield from _metric(kind, f"{label}, {answers}", measures[key])
    yield from _metric("accuracy", "accuracy, three classes", evaluation["three_class"]["accuracy"])


def _metric(kind: str, name: str, measure: Measure) -> Iterator[Metric]:
    value, low, high = measure["value"], measure["low"], measure["high"]
    if value is None:
        return
    interval = "" if low is None or high is None else f" (95 % interval {low:.3f} to {high:.3f})"
    yield {"type": kind, "name": name + interval, "value": round(value, 4)}

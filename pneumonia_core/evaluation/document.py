"""The keys of evaluation.json, and what other parts of the system read from one."""

import json
from pathlib import Path
from typing import NotRequired, TypedDict


class Measure(TypedDict):
    """An `Estimate` in JSON: the value and its 95 % interval, null where undefined."""

    value: float | None
    low: float | None
    high: float | None


class ReliabilityBin(TypedDict):
    """The images with a probability from `low` to `high`."""

    low: float
    high: float
    images: int
    predicted: float | None  # mean probability
    observed: Measure  # share of positives


class CalibrationFigures(TypedDict):
    slope: Measure
    intercept: Measure
    ece: Measure
    brier: Measure
    bins: list[ReliabilityBin]


class RocCurve(TypedDict):
    fpr: list[float]
    tpr: list[float]


class PrecisionRecallCurve(TypedDict):
    recall: list[float]
    precision: list[float]


class TaskFigures(TypedDict):
    """The figures of one `measures.Task`; the curves are null where the images lack one of its answers."""

    positive: str
    negative: str
    images: int
    positives: int
    threshold: float
    auroc: Measure
    auprc: Measure
    accuracy: Measure
    sensitivity: Measure
    specificity: Measure
    sensitivity_at_specificity_90: Measure
    sensitivity_at_specificity_95: Measure
    calibration: CalibrationFigures
    roc: RocCurve | None
    pr: PrecisionRecallCurve | None


class ThreeClassFigures(TypedDict):
    accuracy: Measure
    recall: dict[str, Measure]  # by class
    confusion: list[list[int]]  # [truth][finding]


class PredictiveValues(TypedDict):
    """Predictive values of the finding pneumonia, at one prevalence."""

    prevalence: float
    ppv: Measure
    npv: Measure


class BootstrapFacts(TypedDict):
    """`skipped` resamples lack a class that the data have; the others are `used`."""

    unit: str
    level: float
    resamples: int
    used: int
    skipped: int
    seed: int


class Prevalence(TypedDict):
    """Shares of pneumonia: in the images, as assumed (or null), and where the model was calibrated."""

    evaluated: float
    assumed: float | None
    calibrated_at: float


class ThresholdValues(TypedDict):
    pneumonia: float
    bacterial: float


class Subgroup(TypedDict):
    """The measures of the images with one value, `group`, of a `factor`."""

    factor: str
    group: str
    images: int
    patients: int
    normal: int
    pneumonia: int
    auroc: Measure
    sensitivity: Measure
    specificity: Measure
    bacterial_viral_auroc: Measure


class SubgroupGap(TypedDict):
    """The largest difference of a measure between two groups of a factor, `highest` less `lowest`."""

    factor: str
    measure: str
    highest: str
    lowest: str
    gap: Measure


class HeaviestPatient(TypedDict):
    """The patient, named by one of `images` images, without whom the AUROC of a task changes the most."""

    task: str
    image: str
    images: int
    auroc: float
    auroc_without: float


class RiskCoveragePoint(TypedDict):
    """The accuracy on the share `coverage` of the images that the model is surest of."""

    coverage: float
    accuracy: Measure


class RiskCoverage(TypedDict):
    """`aurc` is the area under selective risk over coverage, `error_rate` the risk at full coverage."""

    task: str
    aurc: Measure
    error_rate: float
    points: list[RiskCoveragePoint]


class KindEffect(TypedDict):
    """The effect of a perturbation on the bacterial share; null without images of known kind."""

    auroc_change: Measure
    mean_change: float | None
    p99_change: float | None


class PerturbationEffect(TypedDict):
    """The effect of a perturbation, most of it on p_pneumonia.

    `shift` is the mean change by class and of pneumonia.
    """

    name: str
    label: str
    auroc_change: Measure
    mean_change: float
    p99_change: float
    shift: dict[str, float | None]
    shift_difference: float | None
    findings_changed: float
    bacterial_viral: KindEffect
    three_class_accuracy_change: Measure


class Robustness(TypedDict):
    images: int
    images_by_class: dict[str, int]
    auroc: Measure
    bacterial_viral_auroc: Measure
    three_class_accuracy: Measure
    median_aspect: dict[str, float] | None
    rows: list[PerturbationEffect]


class DomainFigures(TypedDict):
    threshold: float
    flagged_share: float


class FindingsSetFigures(TypedDict):
    """The `coverage` asked for, the share `covered` by class, and the sizes of the findings sets."""

    coverage: float
    covered: dict[str, Measure]
    mean_size: Measure
    images_by_size: list[int]  # sets of one class, two, three


class SeenImages(TypedDict):
    """The images whose file the model was trained on, or was calibrated and validated on.

    `examples` are the URIs of the first of them.
    """

    training: int
    validation: int
    examples: list[str]


class Evaluation(TypedDict):
    """The content of evaluation.json. `pneumonia evaluate` and training add the last keys."""

    images: int
    patients: int
    images_by_class: dict[str, int]
    thresholds: ThresholdValues
    bootstrap: BootstrapFacts
    prevalence: Prevalence
    tasks: dict[str, TaskFigures]  # pneumonia_vs_normal and bacterial_vs_viral
    three_class: ThreeClassFigures
    predictive_values: list[PredictiveValues]
    model_id: NotRequired[str]
    split: NotRequired[str]
    engine: NotRequired[str]
    precision: NotRequired[str]
    subgroups: NotRequired[list[Subgroup]]
    subgroup_gaps: NotRequired[list[SubgroupGap]]
    heaviest_patients: NotRequired[list[HeaviestPatient]]
    risk_coverage: NotRequired[RiskCoverage]
    domain: NotRequired[DomainFigures]
    findings_sets: NotRequired[FindingsSetFigures]
    robustness: NotRequired[Robustness | None]
    rejected: NotRequired[dict[str, int]]
    seen_images: NotRequired[SeenImages | None]


def as_text(evaluation: Evaluation) -> str:
    """The text of evaluation.json."""
    return json.dumps(evaluation, indent=2) + "\n"


def prevalence_evaluated(path: Path) -> float | None:
    """The share of pneumonia that the probabilities of a bundle with this evaluation.json are for.

    It is that of the images, or the one that was assumed in their place. None without the file, or at 0 or 1.
    """
    if not path.is_file():
        return None
    prevalence = json.loads(path.read_text(encoding="utf-8"))["prevalence"]
    share = prevalence["evaluated"] if prevalence["assumed"] is None else prevalence["assumed"]
    return float(share) if 0 < share < 1 else None


def headline(evaluation: Evaluation) -> dict[str, float | None]:
    """The four figures that a reader looks for first."""
    pneumonia, kind = (evaluation["tasks"][name] for name in ("pneumonia_vs_normal", "bacterial_vs_viral"))
    return {
        "pneumonia_auroc": pneumonia["auroc"]["value"],
        "accuracy": pneumonia["accuracy"]["value"],
        "bacterial_viral_auroc": kind["auroc"]["value"],
        "three_class_accuracy": evaluation["three_class"]["accuracy"]["value"],
    }

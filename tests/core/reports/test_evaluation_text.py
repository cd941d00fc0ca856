"""An evaluation as text for a terminal."""

from pneumonia_core.evaluation.document import Measure, PerturbationEffect
from pneumonia_core.evaluation.perturbations import PERTURBATIONS
from pneumonia_core.reports.evaluation_text import robustness_lines


def test_robustness_table_fits_a_terminal():
    undefined: Measure = {"value": None, "low": None, "high": None}
    rows: list[PerturbationEffect] = [
        {
            "name": one.name, "label": one.label, "auroc_change": {**undefined, "value": -0.1234},
            "mean_change": 0.1, "p99_change": 0.9, "shift": {}, "shift_difference": None,
            "findings_changed": 0.0, "three_class_accuracy_change": undefined,
            "bacterial_viral": {"auroc_change": undefined, "mean_change": None, "p99_change": None},
        }
        for one in PERTURBATIONS
    ]  # fmt: skip
    lines = robustness_lines(
        {
            "auroc": undefined, "bacterial_viral_auroc": undefined, "three_class_accuracy": undefined,
            "images": 123_456, "images_by_class": {}, "median_aspect": None, "rows": rows,
        }
    )  # fmt: skip
    assert len(lines) == 1 + len(PERTURBATIONS)
    assert {len(line) for line in lines} == {74}
    assert lines[1].split()[-4:] == ["-0.123", "0.100", "0.900", "–"]


def test_without_perturbations_there_is_no_table():
    assert robustness_lines(None) == []

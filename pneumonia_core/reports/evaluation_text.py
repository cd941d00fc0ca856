"""An evaluation in lines of a terminal's 80 characters."""

from typing import Final

from pneumonia_core.evaluation.document import Evaluation, HeaviestPatient, Robustness, SubgroupGap, headline
from pneumonia_core.reports.evaluation_page import CAUTIONS, MEASURES, seen_words
from pneumonia_core.reports.render import shown

# A patient who moves an AUROC by less is on the page alone.
_HEAVY: Final = 0.01


def evaluation_lines(evaluation: Evaluation) -> list[str]:
    """The headline figures, what to beware of, and the effect of each perturbation."""
    figures = headline(evaluation)
    lines = [", ".join(f"{name} {value:.3f}" for name, value in figures.items() if value is not None)]
    caution = CAUTIONS.get(evaluation.get("split", ""))
    lines += [caution] if caution else []
    seen = seen_words(evaluation)
    lines += [f"{seen} The figures are too good."] if seen else []
    heaviest = evaluation.get("heaviest_patients", [])
    lines += [_patient_line(row) for row in heaviest if abs(row["auroc_without"] - row["auroc"]) >= _HEAVY]
    lines += [_gap_line(gap) for gap in evaluation.get("subgroup_gaps", [])]
    return lines + robustness_lines(evaluation.get("robustness"))


def _patient_line(row: HeaviestPatient) -> str:
    images = "the one image" if row["images"] == 1 else f"the {row['images']:,} images"
    return (
        f"AUROC of {row['task'].replace('_', ' ')} without {images} of one patient "
        f"({shown(row['image'])}): {row['auroc_without']:.3f} instead of {row['auroc']:.3f}"
    )


def _gap_line(row: SubgroupGap) -> str:
    gap, low, high = (_number(row["gap"][end], "") for end in ("value", "low", "high"))
    pair = f"{shown(row['highest'])} over {shown(row['lowest'])}"
    return f"{MEASURES[row['measure']]} by {shown(row['factor'])}: {pair} by {gap} ({low} to {high})"


def robustness_lines(table: Robustness | None) -> list[str]:
    """A heading, and for each perturbation how far it moves AUROC and scores; nothing without a table."""
    if table is None:
        return []
    before = f"AUROC {_number(table['auroc']['value'], '')} on {table['images']} images; when they are"
    lines = [f"{before:<44} {'AUROC':>7} {'|Δp|':>6} {'99 %':>6} {'apart':>7}"]
    for row in table["rows"]:
        lines.append(
            f"{row['label']:<44} {_number(row['auroc_change']['value']):>7} {row['mean_change']:>6.3f} "
            f"{row['p99_change']:>6.3f} {_number(row['shift_difference']):>7}"
        )
    return lines


def _number(value: float | None, sign: str = "+") -> str:
    return "–" if value is None else f"{value:{sign}.3f}"

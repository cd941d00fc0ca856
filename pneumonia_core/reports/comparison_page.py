"""The page of a comparison of models, and its lines for a terminal."""

from collections.abc import Mapping
from typing import Final

from pneumonia_core.evaluation.comparison.document import Comparison, Comparisons, Difference
from pneumonia_core.reports.render import render_html, signed

NAMES: Final = {
    "pneumonia_vs_normal.auroc": "AUROC, pneumonia or normal",
    "pneumonia_vs_normal.accuracy": "accuracy, pneumonia or normal",
    "pneumonia_vs_normal.sensitivity": "sensitivity, pneumonia",
    "pneumonia_vs_normal.specificity": "specificity, pneumonia",
    "bacterial_vs_viral.auroc": "AUROC, bacterial or viral",
    "bacterial_vs_viral.accuracy": "accuracy, bacterial or viral",
    "three_class.accuracy": "accuracy, three classes",
}
QUESTIONS: Final = {"pneumonia_vs_normal": "pneumonia or normal", "three_class": "three classes"}
# Sensitivity and specificity are two ends of one threshold: what one gains the other loses.
_JUDGED: Final = (
    "pneumonia_vs_normal.auroc",
    "pneumonia_vs_normal.accuracy",
    "bacterial_vs_viral.auroc",
    "three_class.accuracy",
)


def comparison_page(
    comparisons: Comparisons, title: str, facts: Mapping[str, Mapping[str, object]] | None = None
) -> str:
    """One self-contained HTML page; `facts` are further tables by heading."""
    pairs = [{**pair, "verdict": verdict(pair)} for pair in comparisons["pairs"]]
    return render_html(
        "comparison.html", title=title, pairs=pairs, names=NAMES, questions=QUESTIONS, facts=facts or {}
    )


def verdict(pair: Comparison) -> str:
    """Which model is better in which measure, or that the images cannot tell, in one sentence.

    Of the AUROCs and accuracies those count whose interval of the difference excludes 0.
    """
    clear = [row for row in pair["differences"] if row["measure"] in _JUDGED and _excludes_zero(row)]
    if not clear:
        return f"These images cannot tell which of {pair['first']} and {pair['second']} is better."
    better = {
        name: ", ".join(_with_interval(row) for row in clear if _favours_second(row) == is_second)
        for name, is_second in ((pair["first"], False), (pair["second"], True))
    }
    return "; ".join(f"{name} is better in {words}" for name, words in better.items() if words) + "."


def comparison_lines(comparisons: Comparisons) -> list[str]:
    """One line for each pair of models."""
    return [verdict(pair) for pair in comparisons["pairs"]]


def _excludes_zero(row: Difference) -> bool:
    low, high = row["difference"]["low"], row["difference"]["high"]
    return low is not None and high is not None and (low > 0 or high < 0)


def _favours_second(row: Difference) -> bool:
    return (row["difference"]["value"] or 0.0) > 0


def _with_interval(row: Difference) -> str:
    difference = row["difference"]
    low, high = sorted(abs(end or 0.0) for end in (difference["low"], difference["high"]))
    gain = signed(abs(difference["value"] or 0.0))
    return f"{NAMES[row['measure']]} by {gain} ({signed(low)} to {signed(high)})"

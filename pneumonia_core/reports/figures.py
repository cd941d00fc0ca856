"""The figures of the evaluation page, as inline SVG drawn by matplotlib without its global state."""

import io
import re
from collections.abc import Sequence
from typing import Any, Final, Literal

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from pneumonia_core.evaluation.document import PredictiveValues, RiskCoverage, TaskFigures

INK: Final = "#22303c"
MUTED: Final = "#8795a1"
GRID: Final = "#e4e9ed"
FIRST: Final = "#1f5f8b"
SECOND: Final = "#b8602a"
_STYLE: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",  # text stays text: it can be searched, copied and printed sharply
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica Neue", "Helvetica", "Arial", "Liberation Sans", "DejaVu Sans"],
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
}


def curves_figure(task: TaskFigures, prevalence: float) -> str:
    """ROC and precision-recall curve of one task, with the point of its threshold; '' where undefined.

    `prevalence` is the share of positives that the figures apply to.
    """
    roc_curve, pr_curve = task["roc"], task["pr"]
    sensitivity, specificity = task["sensitivity"]["value"], task["specificity"]["value"]
    if roc_curve is None or pr_curve is None or sensitivity is None or specificity is None:
        return ""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8.8, 4.1), layout="constrained")
        roc, pr = figure.subplots(1, 2)
        roc.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, dashes=(4, 3))
        roc.plot(roc_curve["fpr"], roc_curve["tpr"], color=FIRST, linewidth=1.8)
        roc.plot(1 - specificity, sensitivity, "o", color=SECOND, markersize=6)
        _square(roc, "ROC curve", "1 − specificity", "sensitivity")
        pr.axhline(prevalence, color=MUTED, linewidth=0.9, dashes=(4, 3))
        pr.plot(pr_curve["recall"], pr_curve["precision"], color=FIRST, linewidth=1.8)
        called = sensitivity * prevalence + (1 - specificity) * (1 - prevalence)
        if called > 0:
            pr.plot(sensitivity, sensitivity * prevalence / called, "o", color=SECOND, markersize=6)
        _square(pr, "Precision–recall curve", "recall (sensitivity)", "precision")
        return _svg(figure, f"curves-{task['positive']}")


def reliability_figure(tasks: list[TaskFigures]) -> str:
    """Reliability diagrams of the tasks side by side, each over a histogram of its probabilities."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8.8, 5.0), layout="constrained")
        grid = figure.add_gridspec(2, len(tasks), height_ratios=[4.2, 1])
        for column, task in enumerate(tasks):
            upper = figure.add_subplot(grid[0, column])
            lower = figure.add_subplot(grid[1, column], sharex=upper)
            _draw_reliability(upper, task)
            _draw_histogram(lower, task)
        return _svg(figure, "reliability")


def _draw_reliability(axes: Axes, task: TaskFigures) -> None:
    bins = [b for b in task["calibration"]["bins"] if b["predicted"] is not None]
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, dashes=(4, 3))
    predicted = _numbers([b["predicted"] for b in bins])
    observed = _numbers([b["observed"]["value"] for b in bins])
    for b in bins:
        if b["observed"]["low"] is not None:
            whisker = _numbers([b["observed"]["low"], b["observed"]["high"]])
            axes.plot(_numbers([b["predicted"]] * 2), whisker, color=FIRST, alpha=0.45)
    axes.plot(predicted, observed, "o-", color=FIRST, linewidth=1.4, markersize=4.5)
    _square(
        axes,
        f"{task['positive'].capitalize()} or {task['negative']}",
        "",
        f"observed share of {task['positive']}",
    )
    axes.tick_params(labelbottom=False)


def _draw_histogram(axes: Axes, task: TaskFigures) -> None:
    bins = task["calibration"]["bins"]
    centres = [(b["low"] + b["high"]) / 2 for b in bins]
    axes.bar(centres, [b["images"] for b in bins], width=0.085, color=GRID, edgecolor=MUTED, linewidth=0.6)
    axes.set_xlabel(f"probability of {task['positive']}")
    axes.set_ylabel("images")
    axes.locator_params(axis="y", nbins=3)


def predictive_figure(values: list[PredictiveValues], prevalence: float) -> str:
    """PPV and NPV over prevalence with their intervals; a line at `prevalence`. '' where undefined."""
    if any(row["ppv"]["value"] is None or row["npv"]["value"] is None for row in values):
        return ""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8.8, 3.4), layout="constrained")
        axes = figure.subplots()
        shares = [row["prevalence"] for row in values]
        kinds: tuple[tuple[Literal["ppv", "npv"], str, str], ...] = (
            ("ppv", FIRST, "positive"),
            ("npv", SECOND, "negative"),
        )
        for kind, colour, name in kinds:
            measures = [row[kind] for row in values]
            values_of_kind = _numbers([measure["value"] for measure in measures])
            axes.plot(shares, values_of_kind, color=colour, linewidth=1.8, label=f"{name} predictive value")
            if measures[0]["low"] is not None:
                low = _numbers([measure["low"] for measure in measures])
                high = _numbers([measure["high"] for measure in measures])
                axes.fill_between(shares, low, high, color=colour, alpha=0.13, linewidth=0)
        axes.axvline(prevalence, color=MUTED, linewidth=0.9, dashes=(4, 3))
        # Beside the line, on the side where there is room.
        right = prevalence < 0.6
        axes.annotate(
            f"above: {100 * prevalence:.3g} %", (prevalence, 0.04), xytext=(5 if right else -5, 0),
            textcoords="offset points", color=MUTED, ha="left" if right else "right",
        )  # fmt: skip
        axes.set(xlim=(0, 0.92), ylim=(0, 1.02), xlabel="share of images with pneumonia (prevalence)")
        axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        axes.grid(color=GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
        return _svg(figure, "predictive")


def risk_coverage_figure(figures: RiskCoverage) -> str:
    """Accuracy over the share of the images that are answered, the surest first, with its intervals."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8.8, 3.0), layout="constrained")
        axes = figure.subplots()
        shares = [point["coverage"] for point in figures["points"]]
        value, low, high = (
            _numbers([point["accuracy"][end] for point in figures["points"]])
            for end in ("value", "low", "high")
        )
        axes.plot(shares, value, color=FIRST, linewidth=1.8)
        axes.fill_between(shares, low, high, color=FIRST, alpha=0.13, linewidth=0)
        axes.axhline(1 - figures["error_rate"], color=MUTED, linewidth=0.9, dashes=(4, 3))
        axes.set(xlim=(0, 1.01), xlabel="share of the images that are answered", ylabel="accuracy")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        axes.grid(color=GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        return _svg(figure, "risk-coverage")


def _numbers(values: Sequence[float | None]) -> npt.NDArray[np.float64]:
    """For matplotlib, which draws nothing at NaN."""
    return np.array(values, np.float64)


def _square(axes: Axes, title: str, x_label: str, y_label: str) -> None:
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=x_label, ylabel=y_label, title=title)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    axes.grid(color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)


def _svg(figure: Figure, name: str) -> str:
    """The figure as an <svg> element, always the same. Its ids carry `name`: figures share a page."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": name}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata=nothing)
    text = buffer.getvalue()
    return re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{name}-", text[text.index("<svg") :])

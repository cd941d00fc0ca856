"""The table of a comparison in Markdown."""

from collections.abc import Mapping, Sequence

from .summary import Ratio, Sizes, Spread, Summary


def markdown(
    facts: Mapping[str, object], sizes: Sizes, summaries: Sequence[Summary], ratios: Sequence[Ratio]
) -> str:
    """`facts` are lines about the machine, the model and the run."""
    return "\n".join(
        [
            "# `pneumonia score` and its peers",
            "",
            *(f"- {name}: {value}" for name, value in facts.items()),
            "",
            f"Medians over the pairs (least to most). Whole process: {sizes.whole:,} images from command to "
            f"end. Steady state: the further {sizes.whole - sizes.part:,} images over the further seconds "
            f"that this takes against {sizes.part:,}.",
            "",
            *_table(
                [
                    "contestant", "whole process, images/s", "steady state, images/s", "rows",
                    "PSS at peak, GiB",
                    "largest and mean \\|Δp\\| against float32 Keras", "computed with",
                ],
                [_row(summary, sizes) for summary in summaries],
            ),
            "",
            *(_ratios(ratios) if ratios else ()),
            *(_efficiency_line(summary) for summary in summaries if summary.efficiency is not None),
            "",
            "The peers resize images in their own ways, which moves their probabilities; they compute in "
            "float32 Keras. PSS is that of all processes, sampled.",
            "",
        ]
    )  # fmt: skip


def _row(summary: Summary, sizes: Sizes) -> list[str]:
    complete = set(summary.rows) == {sizes.whole}
    rows = f"{sizes.whole:,}" if complete else ", ".join(map(str, summary.rows)) + f" of {sizes.whole:,}"
    return [
        summary.contestant,
        _spread(summary.whole_images_per_s, 1),
        _spread(summary.steady_images_per_s, 1),
        rows,
        f"{summary.peak_pss_bytes / 2**30:.2f}",
        f"{summary.difference.largest:.4f}, {summary.difference.mean:.5f}",
        ", ".join(summary.engines) or "Keras",
    ]


def _ratios(ratios: Sequence[Ratio]) -> list[str]:
    rows = [[each.ours, each.peer, _spread(each.whole, 2), _spread(each.steady, 2)] for each in ratios]
    return [*_table(["times as fast", "as", "whole process", "steady state"], rows), ""]


def _efficiency_line(summary: Summary) -> str:
    efficiency, ceilings = summary.efficiency, summary.ceilings
    assert efficiency is not None
    assert ceilings is not None
    return (
        f"- Efficiency of {summary.contestant}: {_spread(efficiency, 2)} in steady state of the rate at "
        f"which all cores decode (alone {_spread(ceilings.decode_images_per_s, 0)} images/s) and compute "
        f"(alone {_spread(ceilings.engine_images_per_s, 0)} images/s) and never wait. "
        f"What took longest in the last pair: {summary.limits[-1] if summary.limits else 'not known'}."
    )


def _spread(spread: Spread, digits: int) -> str:
    return f"{spread.median:.{digits}f} ({spread.least:.{digits}f} to {spread.most:.{digits}f})"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]

"""What earlier runs tell of a run: how many images they listed, and how their scores were distributed."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pneumonia_core.errors import PneumoniaError
from pneumonia_core.runs.registry import committed_runs
from pneumonia_core.runs.run import Run
from pneumonia_core.storage.errors import error_text

_MAX_RUNS_BEFORE: Final = 30
_ENOUGH_SCORES: Final = 10_000
# Where other archives have runs each night too, those over the same may be far back.
_MAX_READ: Final = 200
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EarlierRuns:
    """What earlier runs tell of a run.

    `listed` is how many images the newest one over the same archives has listed, None without one. `scores`
    is a histogram of p_pneumonia as `Counts` have it, empty without one.
    """

    listed: int | None = None
    scores: tuple[int, ...] = ()


def earlier_runs(run: Run) -> EarlierRuns:
    """What the committed runs tell of this one; nothing, where one of them cannot be read.

    The scores are those of the same model in the newest _MAX_RUNS_BEFORE runs over the same archives, or in
    fewer that scored _ENOUGH_SCORES images, among the last _MAX_READ runs. Where the table has no run over
    these archives, those over others count: each night may have a folder of its own.
    """
    try:
        return _read_earlier_runs(run)
    except (PneumoniaError, OSError) as error:
        why = error.text if isinstance(error, PneumoniaError) else error_text(error)
        _log.warning(
            f"volume and drift of this run are unknown, because an earlier one cannot be read: {why}"
        )
        return EarlierRuns()


def _read_earlier_runs(run: Run) -> EarlierRuns:
    wanted = run.record.configuration
    listed: int | None = None
    alike: list[tuple[int, ...]] = []
    others: list[tuple[int, ...]] = []
    for position, record in enumerate(committed_runs(run.results)):
        same = record.configuration.archives == wanted.archives
        if listed is None and same and record.listing_complete:
            listed = record.counts.listed
        histogram = record.counts.score_histogram
        if record.configuration.model_id == wanted.model_id and any(histogram):
            (alike if same else others).append(histogram)
        if listed is not None and (_are_enough(alike) or position >= _MAX_READ):
            break
    counted = alike or (others[:_MAX_RUNS_BEFORE] if listed is None else [])
    return EarlierRuns(listed, tuple(map(sum, zip(*counted, strict=True))))


def _are_enough(histograms: Sequence[tuple[int, ...]]) -> bool:
    return len(histograms) >= _MAX_RUNS_BEFORE or sum(map(sum, histograms)) >= _ENOUGH_SCORES

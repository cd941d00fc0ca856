"""Bootstrap over patients: the resamples, and the interval that they give a measure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from pneumonia_core.evaluation.document import Measure

Floats = npt.NDArray[np.float64]
LEVEL: Final = 0.95
BLOCK_CELLS: Final = 2_000_000  # resamples x images in memory at a time


@dataclass(frozen=True)
class Estimate:
    """The value of a measure with its 95 % interval from `low` to `high`; each None where undefined."""

    value: float | None
    low: float | None
    high: float | None

    def as_json(self) -> Measure:
        return {"value": self.value, "low": self.low, "high": self.high}


def patient_resamples(
    truth: npt.NDArray[np.int64], patient_index: npt.NDArray[np.int64], resamples: int, seed: int
) -> Iterator[tuple[Floats, int]]:
    """Blocks of weights float64 [R, N], the times each image was drawn, and the number of skipped resamples.

    The first block has one row, the data themselves. In the others, patients are drawn with replacement, each
    with all images, because the images of a patient are not independent. A resample without a class that the
    data have is skipped. If all images are of one patient, every resample is skipped: it would say nothing
    about other patients.
    """
    rng = np.random.default_rng(seed)
    patients = int(patient_index.max()) + 1
    member = (truth[:, None] == np.unique(truth)).astype(np.float64)
    yield np.ones((1, len(truth))), 0
    if patients == 1:
        yield np.ones((0, len(truth))), resamples
        return
    rows = max(1, BLOCK_CELLS // len(truth))
    for start in range(0, resamples, rows):
        drawn = rng.multinomial(patients, np.full(patients, 1 / patients), size=min(rows, resamples - start))
        weights = drawn[:, patient_index].astype(np.float64)
        complete = (weights @ member > 0).all(axis=1)
        yield weights[complete], int((~complete).sum())


def estimate(values: Floats, patients: float | None = None) -> Estimate:
    """The value (row 0) with the 95 % percentile interval over the other rows.

    (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.) For a proportion, pass the
    number of `patients` that its images are of. A proportion of exactly 0 or 1 does not vary over resamples;
    it gets the exact interval for that many trials (Clopper and Pearson, Biometrika 26, 1934). Any other
    proportion of the images of a single patient does not vary either, and gets no interval.
    """
    resampled = values[1:][np.isfinite(values[1:])]
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail]) if len(resampled) else (np.nan, np.nan)
    if patients and np.isfinite(low):
        # Weights to a prevalence leave a rounding error.
        if values[0] > 1 - 1e-9:
            low = tail ** (1 / patients)
        elif values[0] < 1e-9:
            high = 1 - tail ** (1 / patients)
        elif patients <= 1:
            low = high = np.nan
    return Estimate(number(values[0]), number(low), number(high))


def number(value: float) -> float | None:
    """The value as JSON can hold it: None for NaN and infinity."""
    return float(value) if np.isfinite(value) else None

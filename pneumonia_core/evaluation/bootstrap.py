"""Resamples of the patients, and the interval that they give a measure."""

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
LEVEL: Final = 0.95
BLOCK_CELLS: Final = 2_000_000  # resamples x images in memory at a time


def patient_resamples(
    truth: npt.NDArray[np.int64], patient_index: npt.NDArray[np.int64], resamples: int, seed: int
) -> Iterator[tuple[Floats, int]]:
    """Blocks of weights float64 [R, N], the times each image was drawn, and how many resamples were skipped.

    The only row of the first block is the data themselves; in the others patients are drawn with
    replacement, each with all its images, because images of one patient are not independent. A resample that
    lacks a class of the data is skipped; all are of one patient alone, which tells nothing of others.
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


def estimate(values: Floats, patients: float | None = None) -> dict[str, float | None]:
    """The value (row 0) with the 95 % percentile interval over the other rows, null where undefined.

    (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.) Of a share, `patients` says of how many
    its images are. Where it is 0 or 1, so it is in every resample, however few they are: it then gets the exact
    interval for so many trials (Clopper and Pearson, Biometrika 26, 1934). Another share of the images of one patient
    is that in every resample as well, and gets none.
    """
    resampled = values[1:][np.isfinite(values[1:])]
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail]) if len(resampled) else (np.nan, np.nan)
    if patients and np.isfinite(low):
        # Weights to a prevalence leave a rounding.
        if values[0] > 1 - 1e-9:
            low = tail ** (1 / patients)
        elif values[0] < 1e-9:
            high = 1 - tail ** (1 / patients)
        elif patients <= 1:
            low = high = np.nan
    return {"value": number(values[0]), "low": number(low), "high": number(high)}


def number(value: float) -> float | None:
    """The value as JSON can hold it: None for NaN and infinity."""
    return float(value) if np.isfinite(value) else None

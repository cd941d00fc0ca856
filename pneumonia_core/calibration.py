"""Calibration: the two maps from a network's log-odds to probabilities that agree with outcomes."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from pneumonia_core.findings import BACTERIAL, NORMAL, VIRAL

Floats = npt.NDArray[np.float64]
# Columns of log-odds: of pneumonia, and, given pneumonia, of bacterial.
PNEUMONIA_ODDS, BACTERIAL_ODDS = range(2)


@dataclass(frozen=True)
class Calibration:
    """The calibration of a network: one map for each of its two log-odds.

    The calibrated log-odds of pneumonia are `pneumonia_scale` * m + `pneumonia_offset`, those of bacterial
    are `bacterial_scale` * d + `bacterial_offset`, of the network's log-odds m and d (`log_odds`). This is
    Platt scaling (Platt 1999) of each question on its own. Scales are positive, so both rankings stay as the
    network has them. One temperature for both (Guo et al., ICML 2017) is not enough: label smoothing,
    averaging and class weights move the two questions apart.
    """

    pneumonia_scale: float
    pneumonia_offset: float
    bacterial_scale: float
    bacterial_offset: float

    @property
    def scales(self) -> tuple[float, float]:
        """The scales in the order of the columns of log-odds."""
        return self.pneumonia_scale, self.bacterial_scale

    @property
    def offsets(self) -> tuple[float, float]:
        return self.pneumonia_offset, self.bacterial_offset

    def calibrated(self, odds: npt.ArrayLike) -> Floats:
        """The calibrated log-odds float64 [N, 2] of a network's log-odds [N, 2]."""
        return np.asarray(odds, np.float64) * self.scales + self.offsets

    def probabilities(self, odds: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Probabilities float32 [N, 3] of a network's log-odds [N, 2]."""
        return np.exp(log_probabilities(self.calibrated(odds))).astype(np.float32)

    def after(self, earlier: "Calibration") -> "Calibration":
        """The one map that does what `earlier` and then this one do."""
        return Calibration(
            self.pneumonia_scale * earlier.pneumonia_scale,
            self.pneumonia_scale * earlier.pneumonia_offset + self.pneumonia_offset,
            self.bacterial_scale * earlier.bacterial_scale,
            self.bacterial_scale * earlier.bacterial_offset + self.bacterial_offset,
        )


UNCALIBRATED: Final = Calibration(1.0, 0.0, 1.0, 0.0)


def log_odds(logits: npt.ArrayLike) -> Floats:
    """The log-odds float64 [N, 2] of logits [N, 3]: of pneumonia, and, given pneumonia, of bacterial.

    They say the same as softmax(logits): log(p_pneumonia / p_normal) and log(p_bacterial / p_viral).
    """
    z = np.asarray(logits, np.float64)
    pneumonia = np.logaddexp(z[:, BACTERIAL], z[:, VIRAL]) - z[:, NORMAL]
    return np.stack([pneumonia, z[:, BACTERIAL] - z[:, VIRAL]], axis=1)


def log_probabilities(odds: npt.ArrayLike) -> Floats:
    """The logarithms float64 [N, 3] of the class probabilities with these log-odds [N, 2]."""
    m, d = np.asarray(odds, np.float64).T
    ill = _log_sigmoid(m)
    return np.stack([_log_sigmoid(-m), ill + _log_sigmoid(d), ill + _log_sigmoid(-d)], axis=1)


def _log_sigmoid(x: Floats) -> Floats:
    """As scipy.special.log_expit, to the last bit: scoring would import SciPy for this alone."""
    return -np.logaddexp(0.0, -x)

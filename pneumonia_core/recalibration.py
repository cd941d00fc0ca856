"""What turns the logits of a trained network into probabilities that mean what they say."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import log_softmax

from pneumonia_core.errors import InvalidInput

Floats = npt.NDArray[np.float64]

# Of the logits [normal, bacterial, viral]: how far pneumonia is ahead of normal, and bacterial of viral.
_PNEUMONIA = np.array([-1.0, 0.5, 0.5])
_BACTERIAL = np.array([0.0, 1.0, -1.0])


@dataclass(frozen=True)
class Calibration:
    """The two questions put right one by one; the logits that come of it, divided by `temperature`, give probabilities.

    With m = (bacterial + viral) / 2 - normal and d = bacterial - viral of the network's logits, the calibrated ones have
    m + pneumonia_offset and bacterial_scale * d + bacterial_offset. One temperature for both (Guo et al., ICML 2017)
    is not enough: label smoothing and averaging leave the network too modest about pneumonia, which it knows, and
    too sure of bacterial or viral, which it does not; and class weights shift the prior.
    """

    temperature: float
    pneumonia_offset: float
    bacterial_scale: float
    bacterial_offset: float

    @property
    def matrix(self) -> Floats:
        """[3, 3]: logits @ matrix + offset are those to be divided by the temperature."""
        half = self.bacterial_scale * _BACTERIAL / 2
        return np.stack([np.zeros(3), _PNEUMONIA + half, _PNEUMONIA - half], axis=1)

    @property
    def offset(self) -> Floats:
        half = self.bacterial_offset / 2
        return np.array([0.0, self.pneumonia_offset + half, self.pneumonia_offset - half])

    def log_probabilities(self, logits: npt.ArrayLike) -> Floats:
        """Float64 [N, 3] of a network's logits [N, 3]."""
        scaled = (np.asarray(logits, np.float64) @ self.matrix + self.offset) / self.temperature
        return np.asarray(log_softmax(scaled, axis=1))


def fit_calibration(logits: npt.ArrayLike, labels: npt.ArrayLike, copies: int = 1) -> Calibration:
    """The calibration that makes the labels int [N] likeliest for logits [N, 3].

    `copies` of each image are there, varied, and count as one. A weak prior, a standard normal on the four parameters
    (scales by their logarithms), keeps a handful of images told apart without error from giving certainties. Raises
    InvalidInput without images.
    """
    scores, truth = np.asarray(logits, np.float64), np.asarray(labels, np.int64)
    if len(truth) == 0:
        raise InvalidInput("the calibration needs validation images, and there are none.")

    def objective(parameters: Floats) -> float:
        likely = _calibration(parameters).log_probabilities(scores)[np.arange(len(truth)), truth]
        return float(-likely.sum() / copies + np.square(parameters).sum() / 2)

    return _calibration(minimize(objective, np.zeros(4), method="BFGS").x)


def _calibration(parameters: Floats) -> Calibration:
    sharpness, bacterial = np.exp(parameters[:2])
    return Calibration(
        temperature=float(1 / sharpness),
        pneumonia_offset=float(parameters[2] / sharpness),
        bacterial_scale=float(bacterial / sharpness),
        bacterial_offset=float(parameters[3] / sharpness),
    )

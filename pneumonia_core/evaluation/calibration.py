"""Calibration: the map, fitted on validation, from logits to probabilities that agree with outcomes."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import log_softmax

from pneumonia_core.errors import InvalidInput
from pneumonia_core.evaluation.bootstrap import Floats

# Directions in the logits [normal, bacterial, viral]: pneumonia against normal, and bacterial against viral.
_PNEUMONIA = np.array([-1.0, 0.5, 0.5])
_BACTERIAL = np.array([0.0, 1.0, -1.0])


@dataclass(frozen=True)
class Calibration:
    """The calibration of a network's logits; the calibrated logits, divided by `temperature`, give
    probabilities.

    With m = (bacterial + viral) / 2 - normal and d = bacterial - viral of the network's logits, the
    calibrated logits have m + pneumonia_offset and bacterial_scale * d + bacterial_offset. One temperature
    for both (Guo et al., ICML 2017) is not enough. Label smoothing and averaging make the network
    underconfident about pneumonia and overconfident about bacterial or viral, and class weights shift the
    prior.
    """

    temperature: float
    pneumonia_offset: float
    bacterial_scale: float
    bacterial_offset: float

    @property
    def matrix(self) -> Floats:
        """float64 [3, 3]: logits @ matrix + offset are the calibrated logits."""
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
    """The calibration of the greatest likelihood for logits [N, 3] with labels int [N].

    `copies` is the number of variations of each image in the arrays; they count as one image. A weak prior, a
    standard normal on the four parameters (scales by their logarithms), keeps a few perfectly separated
    images from giving certainties. Raises InvalidInput without images.
    """
    scores, truth = np.asarray(logits, np.float64), np.asarray(labels, np.int64)
    if len(truth) == 0:
        raise InvalidInput("calibration needs validation images, but there are none.")

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


def prior_corrected(probability: npt.ArrayLike, assumed: float, prevalence: float) -> Floats:
    """The probabilities of the positive class where its prevalence is `prevalence` instead of `assumed`.

    The odds are multiplied by the ratio of the prior odds, which is Bayes' rule with the same images seen
    in each class (Saerens, Latinne and Decaestecker, Neural Computation 14, 2002, eq. 2.4).
    """
    for name, value in (("assumed", assumed), ("wanted", prevalence)):
        if not 0 < value < 1:
            raise InvalidInput(
                f"the {name} prevalence is {value:g}; it must lie between 0 and 1, both excluded."
            )
    p = np.asarray(probability, dtype=np.float64)
    ill = p * prevalence / assumed
    well = (1 - p) * (1 - prevalence) / (1 - assumed)
    return ill / (ill + well)

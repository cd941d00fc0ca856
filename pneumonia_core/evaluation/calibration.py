"""Calibration: the maps, fitted on validation, from log-odds to probabilities that agree with outcomes."""

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import log_expit

from pneumonia_core.calibration import BACTERIAL_ODDS, PNEUMONIA_ODDS, Calibration
from pneumonia_core.errors import InvalidInput
from pneumonia_core.evaluation.bootstrap import Floats
from pneumonia_core.evaluation.scored_set import of_known_kind
from pneumonia_core.findings import BACTERIAL, NORMAL


def fit_calibration(odds: npt.ArrayLike, labels: npt.ArrayLike) -> Calibration:
    """The calibration of the greatest likelihood for log-odds [N, 2] (`log_odds`) with labels int [N].

    Labels are indices into LABELS. Each of the two maps is fitted on its own: `fit_pneumonia`, `fit_kind`.
    Raises InvalidInput without images.
    """
    return Calibration(*fit_pneumonia(odds, labels), *fit_kind(odds, labels))


def fit_pneumonia(odds: npt.ArrayLike, labels: npt.ArrayLike, copies: int = 1) -> tuple[float, float]:
    """The scale and the offset of the log-odds of pneumonia, fitted on all images.

    `copies` is the number of variations of each image in the arrays; they count as one image.
    """
    columns, truth = _columns(odds, labels)
    return _fit_map(columns[:, PNEUMONIA_ODDS], truth != NORMAL, copies=copies)


def fit_kind(
    odds: npt.ArrayLike, labels: npt.ArrayLike, false_bacterial: float = 0.0, false_viral: float = 0.0
) -> tuple[float, float]:
    """The scale and the offset of the log-odds of bacterial, fitted on the images of a known kind.

    `false_bacterial` is the share of viral pneumonias that are labelled bacterial, `false_viral` the reverse.
    The map then gives the probability of the kind, not that of the label.
    """
    columns, truth = _columns(odds, labels)
    known = of_known_kind(truth)
    return _fit_map(columns[known, BACTERIAL_ODDS], truth[known] == BACTERIAL, (false_bacterial, false_viral))


def _columns(odds: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[Floats, npt.NDArray[np.int64]]:
    columns, truth = np.asarray(odds, np.float64), np.asarray(labels, np.int64)
    if len(truth) == 0:
        raise InvalidInput("calibration needs validation images, but there are none.")
    return columns, truth


def _fit_map(
    odds: Floats,
    positive: npt.NDArray[np.bool_],
    wrong: tuple[float, float] = (0.0, 0.0),
    copies: int = 1,
) -> tuple[float, float]:
    """The scale and the offset of the likeliest map of log-odds [N] with labels [N].

    `wrong` are the shares of negatives labelled positive and of positives labelled negative. A weak prior, a
    standard normal on the logarithm of the scale and on the offset, keeps a few perfectly separated images
    from giving certainties. It also keeps the scale positive.
    """
    sign = np.where(positive, 1.0, -1.0)
    with np.errstate(divide="ignore"):
        wrongly = np.log(np.where(positive, *wrong))
    rightly = np.log1p(-sum(wrong))

    def objective(parameters: Floats) -> float:
        of_outcome = log_expit(sign * (np.exp(parameters[0]) * odds + parameters[1]))
        likely = np.logaddexp(wrongly, rightly + of_outcome)
        return float(-likely.sum() / copies + np.square(parameters).sum() / 2)

    scale, offset = minimize(objective, np.zeros(2), method="BFGS").x
    return float(np.exp(scale)), float(offset)


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

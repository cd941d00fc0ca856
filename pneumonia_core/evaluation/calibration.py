"""What turns the logits of a trained network into probabilities that mean what they say."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import log_softmax

from pneumonia_core.errors import InvalidInput
from pneumonia_core.evaluation.calibration_measures import Floats
from pneumonia_core.findings import BACTERIAL, NORMAL, VIRAL, bacterial_share, p_pneumonia


def choose_thresholds(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, copies: int = 1
) -> tuple[float, float]:
    """The thresholds (t1, t2) of the finding, chosen on validation: see findings.Thresholds.

    Each maximises Youden's J = sensitivity + specificity - 1 (Youden 1950), which does not depend on how
    many images are ill. Accuracy would: 74 % of the training images are ill and 62.5 % of the test images,
    so a threshold of best training accuracy calls too many healthy children ill.

    J jumps from image to image, and the best of many jumps is partly luck. So every threshold with J within one
    standard error of the best is as good as it (the one-standard-error rule of Breiman et al. 1984, applied to a
    threshold). Of those, the one nearest to the share of positives among these images is chosen, but off the edges, by
    a quarter, of the stretch of thresholds that it lies in: there a calibrated probability says that the image itself
    speaks for neither, which is where J is best. `copies` of each image are there, varied, which tell no more patients
    apart than one would. Raises InvalidInput where a class is missing.
    """
    truth = np.asarray(labels, dtype=np.int64)
    missing = [name for label, name in ((NORMAL, "normal"), (BACTERIAL, "bacterial"), (VIRAL, "viral"))
               if not (truth == label).any()]  # fmt: skip
    if missing:
        raise InvalidInput(
            f"thresholds need validation images of every class; {', '.join(missing)} is missing."
        )
    ill = truth != NORMAL
    t1 = _choose_threshold(p_pneumonia(probabilities), ill, copies)
    t2 = _choose_threshold(bacterial_share(probabilities)[ill], truth[ill] == BACTERIAL, copies)
    return t1, t2


def _choose_threshold(scores: npt.NDArray[np.float32], positive: npt.NDArray[np.bool_], copies: int) -> float:
    share = positive.mean()
    least, greatest = min(
        _as_good_as_the_best(scores, positive, copies),
        key=lambda stretch: abs(share - np.clip(share, *stretch)),
    )
    quarter = (greatest - least) / 4
    return float(np.float32(np.clip(share, least + quarter, greatest - quarter)))


def _as_good_as_the_best(
    scores: npt.NDArray[np.float32], positive: npt.NDArray[np.bool_], copies: int
) -> list[tuple[float, float]]:
    """The stretches of thresholds, from and to, with J within one standard error of its best."""
    distinct = np.unique(scores)
    # A threshold in (edges[k], edges[k + 1]] calls the same images positive wherever it lies there.
    edges = np.concatenate([[0.0], distinct, [1.0]])
    ill, well = np.sort(scores[positive]), np.sort(scores[~positive])
    missed = np.searchsorted(ill, np.append(distinct, np.inf), side="left")
    cleared = np.searchsorted(well, np.append(distinct, np.inf), side="left")
    youden = 1 - missed / len(ill) + cleared / len(well) - 1
    best = int(youden.argmax())
    variance = _binomial_variance(missed[best], len(ill)) + _binomial_variance(cleared[best], len(well))
    good = np.flatnonzero(youden >= youden[best] - np.sqrt(copies * variance) - 1e-12)
    stretches = np.split(good, np.flatnonzero(np.diff(good) > 1) + 1)
    return [(float(edges[some[0]]), float(edges[some[-1] + 1])) for some in stretches]


def _binomial_variance(count: int, total: int) -> float:
    share = count / total
    return share * (1 - share) / total


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

"""Linear probing before fine-tuning: a head fitted to the features of a trunk that keeps its loaded weights.

A random head on a trained trunk sends random gradients into it. A fitted one leaves the features intact
(LP-FT; Kumar et al., "Fine-Tuning can Distort Pretrained Features", ICLR 2022). The features are computed
once.
"""

from collections.abc import Callable
from dataclasses import astuple
from typing import Final

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from pneumonia_core.calibration import log_odds
from pneumonia_core.findings import CLASSES
from pneumonia_core.training.loss import HierarchicalLoss, LossTerms

PENALTY: Final = 1e-3
MAX_ITERATIONS: Final = 200
_SMALLEST_DEVIATION: Final = 1e-6
Total = Callable[[np.ndarray], np.ndarray]


def fit_linear_probe(
    features: np.ndarray,
    labels: np.ndarray,
    loss: HierarchicalLoss,
    total: Total,
    penalty: float = PENALTY,
) -> tuple[np.ndarray, np.ndarray]:
    """Kernel float32 [D, 3] and bias float32 [3] of the least loss over all workers' images.

    `features` float32 [N, D] and `labels` int [N] are this worker's. `total` adds an array over all workers,
    so every worker gets the same result, and it does not depend on how the images are shared. `penalty` is on
    the squares of the kernel for standardised features. Labels of the kind are taken for true: a linear head
    has no room to learn single wrong ones.
    """
    classes = len(CLASSES)
    by_label = loss.terms()
    terms = LossTerms(*(np.asarray(values, np.float64)[labels] for values in astuple(by_label)))
    mean, deviation, count = _moments(features, total)
    standard = (features - mean) / deviation

    def loss_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        kernel, bias = flat[:-classes].reshape(-1, classes), flat[-classes:]
        value, errors = _loss_and_errors(standard @ kernel + bias, terms)
        sums = total(np.concatenate([[value], (standard.T @ errors).ravel(), errors.sum(axis=0)])) / count
        sums[0] += penalty / 2 * float(np.sum(kernel**2))
        sums[1:-classes] += penalty * kernel.ravel()
        return float(sums[0]), sums[1:]

    start = np.zeros((features.shape[1] + 1) * classes)
    found = minimize(
        loss_and_gradient, start, jac=True, method="L-BFGS-B", options={"maxiter": MAX_ITERATIONS}
    ).x
    kernel = found[:-classes].reshape(-1, classes) / deviation[:, None]
    return kernel.astype(np.float32), (found[-classes:] - mean @ kernel).astype(np.float32)


def _loss_and_errors(logits: np.ndarray, terms: LossTerms) -> tuple[float, np.ndarray]:
    """The loss summed over images, and its gradient [N, 3] by their logits [N, 3]."""
    pneumonia, kind = log_odds(logits).T
    first = np.logaddexp(0, pneumonia) - terms.pneumonia_target * pneumonia
    second = np.logaddexp(0, kind) - terms.kind_target * kind
    share = expit(kind)
    by_pneumonia = terms.pneumonia_weight * (expit(pneumonia) - terms.pneumonia_target)
    by_kind = terms.kind_weight * (share - terms.kind_target)
    errors = np.stack(
        [-by_pneumonia, by_pneumonia * share + by_kind, by_pneumonia * (1 - share) - by_kind], axis=1
    )
    return float(np.sum(terms.pneumonia_weight * first + terms.kind_weight * second)), errors


def _moments(features: np.ndarray, total: Total) -> tuple[np.ndarray, np.ndarray, float]:
    """Mean and standard deviation [D] of each feature over all workers' images, and the number of images."""
    wide = features.astype(np.float64)
    sums = total(np.concatenate([[float(len(wide))], wide.sum(axis=0), np.square(wide).sum(axis=0)]))
    count, first, second = sums[0], *np.split(sums[1:], 2)
    mean = first / count
    variance = np.maximum(second / count - mean**2, 0)
    return mean, np.maximum(np.sqrt(variance), _SMALLEST_DEVIATION), float(count)

"""What networks say of held-out images and of variations of them, batch by batch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from pneumonia_core.bundles.engines import BATCH_SIZE
from pneumonia_core.calibration import log_odds
from pneumonia_core.networks.domain_guard import GUARD_IMAGES, DomainGuard, domain_scores
from pneumonia_core.networks.prefilter import smooth
from pneumonia_core.training.augment import Augmentation
from pneumonia_core.training.held_out.images import ImageParts, rebatched
from pneumonia_core.training.held_out.validation_set import ValidationSet
from pneumonia_core.training.held_out.varied import VariedImages


@dataclass(frozen=True)
class View:
    """How the scoring graph shows an image to its members."""

    smoothing: float
    mirror: bool


def varied_odds(
    members: Sequence[keras.Model],
    validation: ValidationSet,
    view: View,
    strengths: Sequence[Augmentation],
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds float64 [M, 2] and labels int [M] of the validation images, varied once by each strength."""
    odds = [
        held_out_odds(members, validation, VariedImages.draw(validation.images, strength, rng), view)
        for strength in strengths
    ]
    return np.concatenate(odds), np.tile(validation.labels, len(strengths))


def held_out_odds(
    members: Sequence[keras.Model], validation: ValidationSet, images: ImageParts | VariedImages, view: View
) -> np.ndarray:
    """Log-odds float64 [N, 2] of the validation images, or of variations of them, by members not trained on
    them."""
    count = len(validation.labels)
    total, times = np.zeros((count, 2)), np.zeros((count, 1))
    for number, member in enumerate(members):
        unseen = validation.unseen_by(number)
        total[unseen] += _log_odds(member, images.batches(BATCH_SIZE, unseen), view)
        times[unseen] += 1
    return total / times


def _log_odds(member: keras.Model, batches: Iterator[np.ndarray], view: View) -> np.ndarray:
    logits, mirrored = [], []
    for images in batches:
        logits.append(_output(member, images, view.smoothing))
        if view.mirror:
            mirrored.append(_output(member, images[:, :, ::-1], view.smoothing))
    odds = log_odds(np.concatenate(logits))
    return (odds + log_odds(np.concatenate(mirrored))) / 2 if view.mirror else odds


def held_out_domain_scores(
    probe: keras.Model, guard: DomainGuard, validation: ValidationSet, smoothing: float
) -> np.ndarray:
    """The domain scores float32 [M] of the images that the first member was not trained on.

    `probe` gives the features that the guard sees.
    """
    batches = validation.images.batches(BATCH_SIZE, validation.unseen_by(0))
    features = (_output(probe, images, smoothing) for images in batches)
    # Features are not small: thousands of bytes an image.
    return np.concatenate([domain_scores(guard, some) for some in rebatched(features, GUARD_IMAGES)])


def outputs(model: keras.Model, images: np.ndarray, smoothing: float) -> np.ndarray:
    """The output of a model with one output for all these images, smoothed as in scoring."""
    return np.concatenate([_output(model, batch, smoothing) for batch in rebatched([images], BATCH_SIZE)])


def _output(model: keras.Model, images: np.ndarray, smoothing: float) -> np.ndarray:
    """The same for a batch."""
    return np.asarray(model.predict_on_batch(np.asarray(smooth(images, smoothing))))

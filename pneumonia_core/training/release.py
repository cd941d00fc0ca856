"""A trained network made ready to score: calibrated, guarded, measured on validation, written as a bundle."""

import datetime
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np

from pneumonia_core import __version__
from pneumonia_core.bundles.bundle import Bundle, ModelSpec, compute_model_id
from pneumonia_core.bundles.writer import write_bundle
from pneumonia_core.domain import Domain
from pneumonia_core.evaluation.calibration import Calibration, choose_thresholds, fit_calibration
from pneumonia_core.evaluation.evaluate import evaluate
from pneumonia_core.findings import Thresholds
from pneumonia_core.networks.classifier import build_classifier
from pneumonia_core.networks.domain_guard import DomainGuard, choose_threshold, domain_scores, fit_guard
from pneumonia_core.networks.prefilter import smooth
from pneumonia_core.networks.scoring_model import domain_features, scoring_model
from pneumonia_core.reports.model_card import model_card
from pneumonia_core.training.augment import Augmentation, Augmenter, draw, reencode_some

BATCH_SIZE: Final = 32
PARITY_IMAGES: Final = 512
VARIATIONS: Final = 3
# The guard must know images as encoders, exposure and position vary them, or it would flag an image for its
# file; every image at random quality, so that it does not know the training files' own encoder either.
_REENCODED: Final = Augmentation(jpeg_quality=(40, 95), encoder_share=1.0)
_VARIED: Final = Augmentation(
    translation=0.03, rotation_deg=3.0, zoom=(0.92, 1.05), in_place=0, contrast=0.12, brightness=0.06
)


@dataclass(frozen=True)
class ValidationSet:
    """Labelled images that were not trained on: uint8 [N, H, W], int64 [N], patient keys [N]."""

    images: np.ndarray
    labels: np.ndarray
    patients: np.ndarray


@dataclass(frozen=True)
class Provenance:
    """Where a network comes from: `data_set` as pages.card knows it, `weights` it started from, `training`
    for the bundle and the card to tell (of it `class_weights` {class: weight} in a sentence), and the ages in years of the youngest and oldest patient, if known."""

    data_fingerprint: str
    data_set: str
    weights: str
    training: dict[str, Any]
    ages_years: tuple[float, float] | None = None


def release(
    models_dir: Path,
    network: str,
    image_size: int,
    weights: Sequence[np.ndarray],
    trained_on: np.ndarray,
    held_back: ValidationSet,
    origin: Provenance,
) -> tuple[Bundle, dict[str, Any]]:
    """The bundle of a classifier with these weights, and its evaluation on the validation images.

    Calibration and thresholds are fitted on the same images, so that the evaluation is a little too good;
    the model card says so. The domain guard is fitted on `trained_on`, training images uint8 [N, H, W], of
    which domain.GUARD_IMAGES are plenty.
    """
    classifier = build_classifier(network, image_size)
    classifier.set_weights(weights)
    logits = _outputs(classifier, held_back.images)
    calibration, thresholds = _calibrated(classifier, held_back, logits)
    probabilities = _probabilities(calibration, logits)
    guard, familiarity = _guard(classifier, trained_on, held_back.images)
    domain = Domain(choose_threshold(familiarity), origin.ages_years)
    evaluation = {
        **evaluate(held_back.labels, probabilities, held_back.patients, thresholds),
        "domain": {
            "threshold": domain.threshold,
            "flagged_share": float(np.mean(familiarity > domain.threshold)),
        },
    }
    _calibrate_head(classifier, calibration)
    facts = ModelSpec(
        network,
        image_size,
        thresholds,
        calibration.temperature,
        origin.data_fingerprint,
        {**origin.training, "calibration": asdict(calibration)},
        domain,
    )
    scorer = scoring_model(classifier, calibration.temperature, guard)
    compared = _spread(len(held_back.labels), PARITY_IMAGES)
    bundle = write_bundle(
        models_dir,
        scorer,
        facts,
        held_back.images[compared],
        held_back.labels[compared],
        probabilities,
        _documents(compute_model_id(scorer, facts), facts, origin, evaluation),
    )
    return bundle, evaluation


def _calibrated(
    classifier: keras.Model, held_back: ValidationSet, logits: np.ndarray
) -> tuple[Calibration, Thresholds]:
    """Calibration and thresholds for the images, whose `logits` these are, and slight variations of them.

    A film that lies a little differently scores a little differently: on the films of one hospital alone the best
    threshold may stand where those of another begin.
    """
    rng = np.random.default_rng(1)
    varied = [_outputs(classifier, _varied(held_back.images, rng)) for _ in range(VARIATIONS)]
    scores, labels = np.concatenate([logits, *varied]), np.tile(held_back.labels, VARIATIONS + 1)
    calibration = fit_calibration(scores, labels, VARIATIONS + 1)
    probabilities = _probabilities(calibration, scores)
    return calibration, Thresholds(*choose_thresholds(labels, probabilities, VARIATIONS + 1))


def _probabilities(calibration: Calibration, logits: np.ndarray) -> np.ndarray:
    return np.exp(calibration.log_probabilities(logits)).astype(np.float32)


def _calibrate_head(classifier: keras.Model, calibration: Calibration) -> None:
    """Let the classifier's last layer give calibrated logits, but for the temperature."""
    head = classifier.get_layer("logits")
    kernel, bias = (weight.astype(np.float64) for weight in head.get_weights())
    head.set_weights([kernel @ calibration.matrix, bias @ calibration.matrix + calibration.offset])


def _outputs(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """What a model of one output gives for all images, smoothed as scoring does it."""
    return np.concatenate(
        [np.asarray(model.predict_on_batch(np.asarray(smooth(batch)))) for batch in _batches(images)]
    )


def _batches(images: np.ndarray) -> list[np.ndarray]:
    return [images[start : start + BATCH_SIZE] for start in range(0, len(images), BATCH_SIZE)]


def _guard(
    classifier: keras.Model, trained_on: np.ndarray, validation: np.ndarray
) -> tuple[DomainGuard, np.ndarray]:
    """The guard, and the domain scores float32 [N] of the validation images."""
    probe = keras.Model(classifier.input, domain_features(classifier))
    rng = np.random.default_rng(0)
    guard = fit_guard(
        np.concatenate(
            [
                _outputs(probe, reencode_some(trained_on, rng, _REENCODED)),
                _outputs(probe, _varied(trained_on, rng)),
            ]
        )
    )
    return guard, domain_scores(guard, _outputs(probe, validation))


def _varied(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    size = images.shape[1]
    augment = Augmenter(size)
    varied = [np.asarray(augment(batch, draw(rng, len(batch), size, _VARIED))) for batch in _batches(images)]
    return reencode_some(np.concatenate(varied).round().astype(np.uint8), rng, _VARIED)


def _spread(count: int, wanted: int) -> np.ndarray:
    """Indices of up to `wanted` of `count` images, evenly spread: they are sorted by class."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).round().astype(int))


def _documents(
    model_id: str, facts: ModelSpec, origin: Provenance, evaluation: dict[str, Any]
) -> dict[str, str]:
    card = model_card(
        {
            "model_id": model_id,
            "version": __version__,
            "network": facts.network,
            "image_size": facts.image_size,
            "temperature": facts.temperature,
            "data_fingerprint": facts.data_fingerprint,
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "weights": origin.weights,
            "ages_years": origin.ages_years,
            "data_set": origin.data_set,
            "class_weights": facts.training.get("class_weights"),
            "training": _told(facts.training),
            "evaluated_on": "validation patients, cut from the training data",
        },
        evaluation,
    )
    return {"evaluation.json": json.dumps(evaluation, indent=1) + "\n", "MODEL_CARD.md": card}


def _told(training: dict[str, Any]) -> dict[str, Any]:
    """The training's facts one deep, without what is long or has a sentence of its own."""
    told: dict[str, Any] = {}
    for name, value in training.items():
        if name == "class_weights":
            continue
        if isinstance(value, dict):
            told.update({f"{name} {key}".replace("_", " "): inner for key, inner in value.items()})
        elif not isinstance(value, list):
            told[name.replace("_", " ")] = value
    return told

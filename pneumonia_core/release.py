"""A trained network made ready to score: calibrated, measured on validation, written as a bundle."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from pneumonia_core.bundle import Bundle, ModelFacts, write_bundle
from pneumonia_core.calibration import choose_thresholds, fit_temperature
from pneumonia_core.findings import Thresholds
from pneumonia_core.metrics import evaluate
from pneumonia_core.networks import build_classifier, scoring_model

BATCH_SIZE = 32
PARITY_IMAGES = 512


def release(
    models_dir: Path,
    network: str,
    image_size: int,
    weights: Sequence[np.ndarray],
    images: np.ndarray,
    labels: np.ndarray,
    patients: np.ndarray,
    data_fingerprint: str,
    training: dict[str, Any],
) -> tuple[Bundle, dict[str, Any]]:
    """The bundle of a classifier with these weights, and its evaluation on validation.

    Temperature and thresholds are fitted on the validation images uint8 [N, H, W], labels int [N],
    patients [N]; so the evaluation, on the same images, is a little too good, and says so.
    """
    classifier = build_classifier(network, image_size)
    classifier.set_weights(weights)
    logits = _logits(classifier, images)
    temperature = fit_temperature(logits, labels)
    probabilities = softmax(logits / temperature, axis=1).astype(np.float32)
    thresholds = Thresholds(*choose_thresholds(labels, probabilities))
    evaluation = evaluate(labels, probabilities, patients, thresholds)
    facts = ModelFacts(network, image_size, thresholds, temperature, data_fingerprint, training)
    parity = _spread(len(images), PARITY_IMAGES)
    bundle = write_bundle(
        models_dir,
        scoring_model(classifier, temperature),
        facts,
        images[parity],
        labels[parity],
        probabilities,
        _documents(facts, evaluation),
    )
    return bundle, evaluation


def _logits(classifier: Any, images: np.ndarray) -> np.ndarray:
    return np.concatenate(
        [
            np.asarray(classifier.predict_on_batch(images[start : start + BATCH_SIZE]))
            for start in range(0, len(images), BATCH_SIZE)
        ]
    )


def _spread(count: int, wanted: int) -> np.ndarray:
    """Indices of up to `wanted` of `count` images, evenly spread: files are sorted by class."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).round().astype(int))


def _documents(facts: ModelFacts, evaluation: dict[str, Any]) -> dict[str, str]:
    return {"evaluation.json": json.dumps(evaluation, indent=1) + "\n"}

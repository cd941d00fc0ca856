"""A trained network made ready to score: calibrated, measured on validation, written as a bundle."""

import datetime
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
from scipy.special import softmax

from pneumonia_core.bundle import Bundle, ModelFacts, write_bundle
from pneumonia_core.calibration import choose_thresholds, fit_temperature
from pneumonia_core.findings import Thresholds
from pneumonia_core.metrics import evaluate
from pneumonia_core.networks import build_classifier, scoring_model
from pneumonia_core.pages.card import model_card

BATCH_SIZE: Final = 32
PARITY_IMAGES: Final = 512


@dataclass(frozen=True)
class HeldBack:
    """Labelled images that were not trained on: uint8 [N, H, W], int64 [N], patient keys [N]."""

    images: np.ndarray
    labels: np.ndarray
    patients: np.ndarray


@dataclass(frozen=True)
class Origin:
    """Where a network comes from: `data_set` as pages.card knows it, `weights` it started from, and
    `training` for the bundle and the card to tell."""

    data_fingerprint: str
    data_set: str
    weights: str
    training: dict[str, Any]


def release(
    models_dir: Path,
    network: str,
    image_size: int,
    weights: Sequence[np.ndarray],
    held_back: HeldBack,
    origin: Origin,
) -> tuple[Bundle, dict[str, Any]]:
    """The bundle of a classifier with these weights, and its evaluation on the validation images.

    Temperature and thresholds are fitted on the same images, so that the evaluation is a little too good;
    the model card says so.
    """
    classifier = build_classifier(network, image_size)
    classifier.set_weights(weights)
    logits = _logits(classifier, held_back.images)
    temperature = fit_temperature(logits, held_back.labels)
    probabilities = softmax(logits / temperature, axis=1).astype(np.float32)
    thresholds = Thresholds(*choose_thresholds(held_back.labels, probabilities))
    evaluation = evaluate(held_back.labels, probabilities, held_back.patients, thresholds)
    facts = ModelFacts(network, image_size, thresholds, temperature, origin.data_fingerprint, origin.training)
    compared = _spread(len(held_back.labels), PARITY_IMAGES)
    bundle = write_bundle(
        models_dir,
        scoring_model(classifier, temperature),
        facts,
        held_back.images[compared],
        held_back.labels[compared],
        probabilities,
        _documents(facts, origin, evaluation),
    )
    return bundle, evaluation


def _logits(classifier: keras.Model, images: np.ndarray) -> np.ndarray:
    return np.concatenate(
        [
            np.asarray(classifier.predict_on_batch(images[start : start + BATCH_SIZE]))
            for start in range(0, len(images), BATCH_SIZE)
        ]
    )


def _spread(count: int, wanted: int) -> np.ndarray:
    """Indices of up to `wanted` of `count` images, evenly spread: they are sorted by class."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).round().astype(int))


def _documents(facts: ModelFacts, origin: Origin, evaluation: dict[str, Any]) -> dict[str, str]:
    card = model_card(
        {
            "network": facts.network,
            "image_size": facts.image_size,
            "temperature": facts.temperature,
            "data_fingerprint": facts.data_fingerprint,
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "weights": origin.weights,
            "data_set": origin.data_set,
            "training": _told(origin.training),
            "evaluated_on": "validation patients, cut from the training data",
        },
        evaluation,
    )
    return {"evaluation.json": json.dumps(evaluation, indent=1) + "\n", "MODEL_CARD.md": card}


def _told(training: dict[str, Any]) -> dict[str, Any]:
    """The training's facts one deep, without what is long."""
    told: dict[str, Any] = {}
    for name, value in training.items():
        if isinstance(value, dict):
            told.update({f"{name} {key}".replace("_", " "): inner for key, inner in value.items()})
        elif not isinstance(value, list):
            told[name.replace("_", " ")] = value
    return told

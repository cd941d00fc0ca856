"""Releasing a trained network: calibrated, guarded, evaluated on validation, written as a bundle."""

import datetime
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np

from pneumonia_core import __version__
from pneumonia_core.bundles.bundle import Bundle, ModelSpec, compute_model_id
from pneumonia_core.bundles.engines import BATCH_SIZE
from pneumonia_core.bundles.parity import ParityImages
from pneumonia_core.bundles.writer import write_bundle
from pneumonia_core.domain import Domain
from pneumonia_core.evaluation.calibration import Calibration, fit_calibration
from pneumonia_core.evaluation.document import Evaluation
from pneumonia_core.evaluation.evaluate import evaluate
from pneumonia_core.evaluation.scored_set import ScoredSet
from pneumonia_core.evaluation.thresholds import choose_thresholds
from pneumonia_core.findings import Thresholds
from pneumonia_core.networks.domain_guard import DomainGuard, choose_threshold, domain_scores, fit_guard
from pneumonia_core.networks.prefilter import smooth
from pneumonia_core.networks.scoring_model import domain_features, scoring_model
from pneumonia_core.reports.model_card import model_card
from pneumonia_core.training.augment import Augmentation, Augmenter, draw, reencode_some

PARITY_IMAGES: Final = 512
VARIATIONS: Final = 3
# The guard is fitted on images with varied encoding, exposure and position; otherwise it would flag an image
# for its file. Each image gets a random JPEG quality, so that the guard does not learn the training files'
# own encoder either.
_REENCODED: Final = Augmentation(jpeg_quality=(40, 95), encoder_share=1.0)
_VARIED: Final = Augmentation(
    translation=0.03, rotation_deg=3.0, zoom=(0.92, 1.05), in_place=0, contrast=0.12, brightness=0.06
)


@dataclass(frozen=True)
class ValidationSet:
    """Labelled images outside the training set: uint8 [N, H, W], labels int64 [N], patient keys [N]."""

    images: np.ndarray
    labels: np.ndarray
    patients: np.ndarray

    def parity_images(self) -> ParityImages:
        """Up to PARITY_IMAGES of them, evenly spread, because they are sorted by class."""
        count = len(self.labels)
        chosen = np.unique(np.linspace(0, count - 1, min(count, PARITY_IMAGES)).round().astype(int))
        return ParityImages(self.images[chosen], self.labels[chosen])


@dataclass(frozen=True)
class Provenance:
    """Where a network comes from.

    `data_set` is one of kermany.DATA_SETS, `weights` what training started from. `training` goes into the
    bundle and the model card; its `class_weights` {class: weight} become a sentence of the card. `ages_years`
    are the ages of the youngest and the oldest patient, None where they are unknown.
    """

    data_fingerprint: str
    data_set: str
    weights: str
    training: dict[str, Any]
    ages_years: tuple[float, float] | None = None


@dataclass(frozen=True)
class Release:
    """A new bundle and its evaluation on the validation images (`evaluate`, with `domain`)."""

    bundle: Bundle
    evaluation: Evaluation

    def headline(self) -> dict[str, Any]:
        """The main figures of the evaluation, flat."""
        tasks = self.evaluation["tasks"]
        return {
            "images": self.evaluation["images"],
            **{f"auroc_{name}": task["auroc"]["value"] for name, task in tasks.items()},
            **{f"accuracy_{name}": task["accuracy"]["value"] for name, task in tasks.items()},
            "accuracy_three_class": self.evaluation["three_class"]["accuracy"]["value"],
            "out_of_domain": self.evaluation["domain"]["flagged_share"],
        }


def release(
    models_dir: Path,
    classifier: keras.Model,
    trained_on: np.ndarray,
    validation: ValidationSet,
    provenance: Provenance,
) -> Release:
    """Write the bundle of a trained float32 classifier, and evaluate it on the validation images.

    The calibration is folded into the classifier's head. Calibration and thresholds are fitted on the
    validation images, so the evaluation is slightly optimistic; the model card says so. The domain guard is
    fitted on `trained_on`, training images uint8 [N, H, W]; domain_guard.GUARD_IMAGES suffice.
    """
    logits = _outputs(classifier, validation.images)
    calibration, thresholds = _calibrate(classifier, validation, logits)
    probabilities = _probabilities(calibration, logits)
    guard, validation_scores = _fit_guard(classifier, trained_on, validation.images)
    domain = Domain(choose_threshold(validation_scores), provenance.ages_years)
    evaluation = evaluate(ScoredSet.of(validation.labels, validation.patients, probabilities), thresholds)
    evaluation["domain"] = {
        "threshold": domain.threshold,
        "flagged_share": float(np.mean(validation_scores > domain.threshold)),
    }
    _calibrate_head(classifier, calibration)
    spec = _spec(classifier, calibration, thresholds, domain, provenance)
    scorer = scoring_model(classifier, calibration.temperature, guard)
    documents = _documents(compute_model_id(scorer, spec), spec, provenance, evaluation)
    bundle = write_bundle(models_dir, scorer, spec, validation.parity_images(), probabilities, documents)
    return Release(bundle, evaluation)


def _calibrate(
    classifier: keras.Model, validation: ValidationSet, logits: np.ndarray
) -> tuple[Calibration, Thresholds]:
    """Calibration and thresholds for the validation images with these `logits`, and variations of them.

    A slightly shifted film gets a slightly different score. Thresholds fitted to the unvaried films of one
    hospital alone may not suit the next.
    """
    rng = np.random.default_rng(1)
    varied = [_outputs(classifier, _vary(validation.images, rng)) for _ in range(VARIATIONS)]
    scores, labels = np.concatenate([logits, *varied]), np.tile(validation.labels, VARIATIONS + 1)
    calibration = fit_calibration(scores, labels, VARIATIONS + 1)
    probabilities = _probabilities(calibration, scores)
    return calibration, choose_thresholds(labels, probabilities, VARIATIONS + 1)


def _fit_guard(
    classifier: keras.Model, trained_on: np.ndarray, validation: np.ndarray
) -> tuple[DomainGuard, np.ndarray]:
    """The guard, and the domain scores float32 [N] of the validation images."""
    probe = keras.Model(classifier.input, domain_features(classifier))
    rng = np.random.default_rng(0)
    reencoded = _outputs(probe, reencode_some(trained_on, rng, _REENCODED))
    varied = _outputs(probe, _vary(trained_on, rng))
    guard = fit_guard(np.concatenate([reencoded, varied]))
    return guard, domain_scores(guard, _outputs(probe, validation))


def _calibrate_head(classifier: keras.Model, calibration: Calibration) -> None:
    """Fold the calibration, except for its temperature, into the classifier's last layer."""
    head = classifier.get_layer("logits")
    kernel, bias = (weight.astype(np.float64) for weight in head.get_weights())
    head.set_weights([kernel @ calibration.matrix, bias @ calibration.matrix + calibration.offset])


def _spec(
    classifier: keras.Model,
    calibration: Calibration,
    thresholds: Thresholds,
    domain: Domain,
    provenance: Provenance,
) -> ModelSpec:
    return ModelSpec(
        network=classifier.name,
        image_size=classifier.input_shape[1],
        thresholds=thresholds,
        temperature=calibration.temperature,
        data_fingerprint=provenance.data_fingerprint,
        training={**provenance.training, "calibration": asdict(calibration)},
        domain=domain,
    )


def _probabilities(calibration: Calibration, logits: np.ndarray) -> np.ndarray:
    return np.exp(calibration.log_probabilities(logits)).astype(np.float32)


def _outputs(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """The output of a model with one output for all images, smoothed as in scoring."""
    return np.concatenate(
        [np.asarray(model.predict_on_batch(np.asarray(smooth(batch)))) for batch in _batches(images)]
    )


def _vary(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Slight random variations uint8 [N, H, W] of images uint8 [N, H, W]."""
    size = images.shape[1]
    augment = Augmenter(size)
    varied = [np.asarray(augment(batch, draw(rng, len(batch), size, _VARIED))) for batch in _batches(images)]
    return reencode_some(np.concatenate(varied).round().astype(np.uint8), rng, _VARIED)


def _batches(images: np.ndarray) -> list[np.ndarray]:
    return [images[start : start + BATCH_SIZE] for start in range(0, len(images), BATCH_SIZE)]


def _documents(
    model_id: str, spec: ModelSpec, provenance: Provenance, evaluation: Evaluation
) -> dict[str, str]:
    """The text files of a bundle, {name: text}."""
    card = model_card(
        {
            "model_id": model_id,
            "version": __version__,
            "network": spec.network,
            "image_size": spec.image_size,
            "temperature": spec.temperature,
            "data_fingerprint": spec.data_fingerprint,
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "weights": provenance.weights,
            "ages_years": provenance.ages_years,
            "data_set": provenance.data_set,
            "class_weights": spec.training.get("class_weights"),
            "training": _listed(spec.training),
            "evaluated_on": "validation patients, cut from the training data",
        },
        evaluation,
    )
    return {"evaluation.json": json.dumps(evaluation, indent=1) + "\n", "MODEL_CARD.md": card}


def _listed(training: dict[str, Any]) -> dict[str, Any]:
    """The entries that the model card lists, one level deep, without lists and without `class_weights`."""
    listed: dict[str, Any] = {}
    for name, value in training.items():
        if name == "class_weights":
            continue
        if isinstance(value, dict):
            listed.update({f"{name} {key}".replace("_", " "): inner for key, inner in value.items()})
        elif not isinstance(value, list):
            listed[name.replace("_", " ")] = value
    return listed

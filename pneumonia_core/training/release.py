"""Releasing a trained network: calibrated, guarded, evaluated on validation, written as a bundle."""

import datetime
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np

from pneumonia_core import __version__
from pneumonia_core.bundles.bundle import Bundle, ModelSpec, compute_model_id
from pneumonia_core.bundles.engines import BATCH_SIZE
from pneumonia_core.bundles.training_images import TRAINING_IMAGES, TrainingImages
from pneumonia_core.bundles.writer import write_bundle
from pneumonia_core.calibration import Calibration, log_odds
from pneumonia_core.domain import Domain
from pneumonia_core.evaluation.calibration import fit_calibration
from pneumonia_core.evaluation.conformal import findings_set_figures, fit_conformal
from pneumonia_core.evaluation.document import Evaluation
from pneumonia_core.evaluation.evaluate import evaluate
from pneumonia_core.evaluation.scored_set import ScoredSet, of_known_kind
from pneumonia_core.evaluation.thresholds import choose_thresholds
from pneumonia_core.findings import DEFAULT_COVERAGE, Thresholds
from pneumonia_core.imaging.contract import SMOOTHING
from pneumonia_core.networks.domain_guard import DomainGuard, choose_threshold, domain_scores, fit_guard
from pneumonia_core.networks.prefilter import smooth
from pneumonia_core.networks.scoring_model import domain_features, scoring_model
from pneumonia_core.reports.model_card import model_card
from pneumonia_core.training.augment import STRENGTHS, Augmentation, reencode_some, vary
from pneumonia_core.training.validation import ValidationSet

VARIATIONS: Final = 3
# The guard is fitted on images with varied encoding, exposure and position; otherwise it would flag an image
# for its file. Each image gets a random JPEG quality, so that the guard does not learn the training files'
# own encoder either.
_REENCODED: Final = Augmentation(jpeg_quality=(40, 95), encoder_share=1.0)
_VARIED: Final = Augmentation(
    translation=0.03, rotation_deg=3.0, zoom=(0.92, 1.05), in_place=0, contrast=0.12, brightness=0.06
)


@dataclass(frozen=True)
class Provenance:
    """Where a network comes from.

    `data_set` is one of kermany.DATA_SETS, `weights` what training started from. `training` goes into the
    bundle and the model card; its `class_weights` {class: weight} become a sentence of the card. `ages_years`
    are the ages of the youngest and the oldest patient, None where they are unknown; so are `images`.
    """

    data_fingerprint: str
    data_set: str
    weights: str
    training: dict[str, Any]
    ages_years: tuple[float, float] | None = None
    images: TrainingImages | None = None


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


@dataclass(frozen=True)
class _View:
    """How the scoring graph shows an image to its members."""

    smoothing: float
    mirror: bool


def release(
    models_dir: Path,
    members: Sequence[keras.Model],
    trained_on: np.ndarray,
    validation: ValidationSet,
    provenance: Provenance,
    mirror: bool = False,
    coverage: float = DEFAULT_COVERAGE,
    smoothing: float = SMOOTHING,
    strength: Augmentation = STRENGTHS["default"],
    int8: bool = False,
) -> Release:
    """Write the bundle of trained float32 classifiers, and evaluate it on the validation images.

    The bundle averages the `members`, classifiers of one network; with `mirror` it also averages the image
    and its mirror image. Its findings sets keep the `coverage`. Calibration, thresholds and the cuts of the
    sets are fitted on the validation images, so the evaluation is slightly optimistic; the model card says
    so. Out-of-fold scores are those of one member each, so the evaluation of several members is that of one.
    Images are smoothed by `smoothing` (`prefilter.smooth`), as in training. Thresholds are chosen on images
    that vary with `strength`, that of training.
    The domain guard is fitted on `trained_on`, training images uint8 [N, H, W] of the first member;
    domain_guard.GUARD_IMAGES suffice. With `int8` the bundle has the engine INT8_ENGINE too, calibrated on
    them.
    """
    view = _View(smoothing, mirror)
    odds = _held_out_odds(members, validation, validation.images, view)
    calibration = _calibrate(members, validation, odds, view)
    thresholds = _choose_thresholds(members, validation, calibration, view, strength)
    probabilities = calibration.probabilities(odds)
    unseen = validation.images[validation.unseen_by(0)]
    guard, validation_scores = _fit_guard(members[0], trained_on, unseen, smoothing)
    domain = Domain(choose_threshold(validation_scores), provenance.ages_years)
    scored = ScoredSet.of(validation.labels, validation.patients, probabilities)
    # The sets name kinds of pneumonia.
    conformal = fit_conformal(scored, thresholds, coverage) if of_known_kind(scored.labels).any() else None
    spec = ModelSpec(
        network=members[0].name,
        image_size=members[0].input_shape[1],
        thresholds=thresholds,
        data_fingerprint=provenance.data_fingerprint,
        training={**provenance.training, "data_set": provenance.data_set},
        domain=domain,
        calibration=calibration,
        members=len(members),
        mirror=mirror,
        conformal=conformal,
        smoothing=smoothing,
    )
    evaluation = evaluate_release(scored, spec, validation_scores)
    scorer = scoring_model(members, calibration, guard, mirror, smoothing)
    model_id = compute_model_id(scorer, spec)
    documents = bundle_documents(model_id, spec, provenance, evaluation, validation.description)
    calibrated_on = trained_on if int8 else None
    sample = validation.parity_images()
    bundle = write_bundle(models_dir, scorer, spec, sample, probabilities, documents, calibrated_on)
    return Release(bundle, evaluation)


def evaluate_release(
    scored: ScoredSet, spec: ModelSpec, domain_scores: np.ndarray | None, prevalence: float | None = None
) -> Evaluation:
    """The evaluation that a new bundle holds; its calibration is for `prevalence`, None for that of `scored`.

    `domain_scores` float32 [M] are None where there is no guard.
    """
    evaluation = evaluate(scored, spec.thresholds, prevalence=prevalence, calibrated_at=prevalence)
    if spec.conformal is not None:
        evaluation["findings_sets"] = findings_set_figures(scored, spec.thresholds, spec.conformal)
    if spec.domain is not None and domain_scores is not None:
        evaluation["domain"] = {
            "threshold": spec.domain.threshold,
            "flagged_share": float(np.mean(domain_scores > spec.domain.threshold)),
        }
    return evaluation


def _calibrate(
    members: Sequence[keras.Model], validation: ValidationSet, odds: np.ndarray, view: _View
) -> Calibration:
    """The calibration for the validation images with these log-odds, and for slight variations of them."""
    varied, labels = _varied_odds(members, validation, view, _VARIED, np.random.default_rng(1))
    scores, truth = np.concatenate([odds, varied]), np.concatenate([validation.labels, labels])
    return fit_calibration(scores, truth, VARIATIONS + 1)


def _choose_thresholds(
    members: Sequence[keras.Model],
    validation: ValidationSet,
    calibration: Calibration,
    view: _View,
    strength: Augmentation,
) -> Thresholds:
    """Thresholds for the validation images, varied as in training.

    Unvaried, the normals of the training hospital lie far from any doubt, and the best threshold among them
    calls normals of others ill: specificity 0.77 to 0.81 on half of Kermany's test split.
    """
    odds, labels = _varied_odds(members, validation, view, strength, np.random.default_rng(2))
    return choose_thresholds(labels, calibration.probabilities(odds), VARIATIONS)


def _varied_odds(
    members: Sequence[keras.Model],
    validation: ValidationSet,
    view: _View,
    strength: Augmentation,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds float64 [M, 2] and labels int [M] of VARIATIONS variations of each validation image."""
    odds = [
        _held_out_odds(members, validation, vary(validation.images, strength, rng), view)
        for _ in range(VARIATIONS)
    ]
    return np.concatenate(odds), np.tile(validation.labels, VARIATIONS)


def _held_out_odds(
    members: Sequence[keras.Model], validation: ValidationSet, images: np.ndarray, view: _View
) -> np.ndarray:
    """Log-odds float64 [N, 2] of the validation images, or of variations of them, by members not trained on
    them."""
    total, count = np.zeros((len(images), 2)), np.zeros((len(images), 1))
    for number, member in enumerate(members):
        unseen = validation.unseen_by(number)
        total[unseen] += _log_odds(member, images[unseen], view)
        count[unseen] += 1
    return total / count


def _log_odds(member: keras.Model, images: np.ndarray, view: _View) -> np.ndarray:
    odds = log_odds(_outputs(member, images, view.smoothing))
    if not view.mirror:
        return odds
    return (odds + log_odds(_outputs(member, images[:, :, ::-1], view.smoothing))) / 2


def _fit_guard(
    classifier: keras.Model, trained_on: np.ndarray, validation: np.ndarray, smoothing: float
) -> tuple[DomainGuard, np.ndarray]:
    """The guard, and the domain scores float32 [N] of the validation images."""
    probe = keras.Model(classifier.input, domain_features(classifier))
    rng = np.random.default_rng(0)
    reencoded = _outputs(probe, reencode_some(trained_on, rng, _REENCODED), smoothing)
    varied = _outputs(probe, vary(trained_on, _VARIED, rng), smoothing)
    guard = fit_guard(np.concatenate([reencoded, varied]))
    return guard, domain_scores(guard, _outputs(probe, validation, smoothing))


def _outputs(model: keras.Model, images: np.ndarray, smoothing: float) -> np.ndarray:
    """The output of a model with one output for all images, smoothed as in scoring."""
    smoothed = (np.asarray(smooth(batch, smoothing)) for batch in _batches(images))
    return np.concatenate([np.asarray(model.predict_on_batch(batch)) for batch in smoothed])


def _batches(images: np.ndarray) -> list[np.ndarray]:
    return [images[start : start + BATCH_SIZE] for start in range(0, len(images), BATCH_SIZE)]


def bundle_documents(
    model_id: str,
    spec: ModelSpec,
    provenance: Provenance,
    evaluation: Evaluation,
    evaluated_on: str,
) -> dict[str, str | bytes]:
    """The further files of a bundle, {name: content}."""
    card = model_card(
        {
            "model_id": model_id,
            "version": __version__,
            "network": spec.network,
            "image_size": spec.image_size,
            "calibration": spec.calibration,
            "members": spec.members,
            "mirror": spec.mirror,
            "smoothing": spec.smoothing,
            "data_fingerprint": spec.data_fingerprint,
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "weights": provenance.weights,
            "ages_years": provenance.ages_years,
            "data_set": provenance.data_set,
            "class_weights": spec.training.get("class_weights"),
            "training": _listed(spec.training),
            "recalibration": spec.training.get("recalibration"),
            "evaluated_on": evaluated_on,
        },
        evaluation,
    )
    documents: dict[str, str | bytes] = {
        "evaluation.json": json.dumps(evaluation, indent=1) + "\n",
        "MODEL_CARD.md": card,
    }
    if provenance.images is not None:
        documents[TRAINING_IMAGES] = provenance.images.as_parquet()
    return documents


def _listed(training: dict[str, Any]) -> dict[str, Any]:
    """The entries that the model card lists, one level deep, without lists and what it says elsewhere."""
    listed: dict[str, Any] = {}
    for name, value in training.items():
        if name in ("class_weights", "data_set", "recalibration"):
            continue
        if isinstance(value, dict):
            listed.update({f"{name} {key}".replace("_", " "): inner for key, inner in value.items()})
        elif not isinstance(value, list):
            listed[name.replace("_", " ")] = value
    return listed

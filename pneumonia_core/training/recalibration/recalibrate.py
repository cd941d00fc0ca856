"""Recalibration: a new bundle of the same network, with calibration, thresholds and guard of local images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.special import logit

from pneumonia_core.bundles.bundle import Bundle, ModelSpec, compute_model_id, read_keras_model
from pneumonia_core.bundles.parity import ParityImages
from pneumonia_core.bundles.training_images import TrainingImages, read_training_images
from pneumonia_core.bundles.writer import write_bundle
from pneumonia_core.calibration import UNCALIBRATED, Calibration, log_odds
from pneumonia_core.domain import Domain
from pneumonia_core.evaluation.calibration import fit_calibration, prior_corrected
from pneumonia_core.evaluation.conformal import fit_conformal
from pneumonia_core.evaluation.scored_set import ScoredSet, of_known_kind
from pneumonia_core.evaluation.thresholds import check_both_outcomes, choose_local_thresholds
from pneumonia_core.findings import BACTERIAL, NORMAL, PNEUMONIA_UNKNOWN_KIND, VIRAL, Thresholds
from pneumonia_core.networks.domain_guard import choose_threshold
from pneumonia_core.networks.scoring_model import classifiers_of, guard_of, load_scoring_model, scoring_model
from pneumonia_core.training.release import Provenance, Release, bundle_documents, evaluate_release

# The logarithm of a float32 probability that has become 0.
_LEAST: Final = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class LocalImages:
    """Labelled images of one's own, and what a bundle made of them.

    `scored` are their scores in float32. `domain_scores` float32 [N] are None where the bundle has no guard,
    `ages_years` [N] each None where unknown. `hashes` are the SHA-256 of their files. On the `sample` the
    engines of the new bundle are measured.
    """

    scored: ScoredSet
    domain_scores: npt.NDArray[np.float32] | None
    ages_years: Sequence[float | None]
    hashes: frozenset[str]
    sample: ParityImages

    @property
    def patients(self) -> int:
        return len(np.unique(self.scored.patients))


@dataclass(frozen=True)
class LocalUse:
    """`sensitivity` is the least that is wanted for pneumonia, None for a threshold by Youden's J.

    `prevalence` is the share of pneumonia where the model will be used, None for that of the local images.
    """

    sensitivity: float | None = None
    prevalence: float | None = None


def recalibrate(models_dir: Path, bundle: Bundle, local: LocalImages, use: LocalUse) -> Release:
    """Write a new bundle with the network of `bundle`, and evaluate it on the local images.

    A calibration is fitted to the local scores and follows that of the bundle; thresholds, findings sets, the
    guard's threshold and its ages are chosen on the local images too. All is fitted on the images that the
    evaluation is of, so that is slightly optimistic; the model card says so. Where the images do not hold
    both kinds of pneumonia, what concerns the kind stays as it is in the bundle. Raises InvalidInput without
    normal images or without pneumonia.
    """
    scored = _with_kinds(local.scored)
    odds = log_odds(np.log(np.maximum(scored.probabilities, _LEAST)))
    fitted = fit_calibration(odds, scored.labels)
    thresholds = choose_local_thresholds(
        scored.labels, fitted.probabilities(odds), use.sensitivity, bundle.thresholds
    )
    if use.prevalence is not None:
        fitted, thresholds = _to_prevalence(fitted, thresholds, scored, use.prevalence)
    rescored = ScoredSet.of(scored.labels, scored.patients, fitted.probabilities(odds))
    spec = _spec(bundle, local, use, rescored, fitted, thresholds)
    evaluation = evaluate_release(rescored, spec, local.domain_scores, use.prevalence)
    old = load_scoring_model(read_keras_model(bundle))
    scorer = scoring_model(
        classifiers_of(old), spec.calibration or UNCALIBRATED, guard_of(old), spec.mirror, spec.smoothing
    )
    documents = bundle_documents(
        compute_model_id(scorer, spec),
        spec,
        _provenance(bundle, local, spec),
        evaluation,
        "local validation images, given to `pneumonia recalibrate`",
    )
    written = write_bundle(models_dir, scorer, spec, local.sample, rescored.probabilities, documents)
    return Release(written, evaluation)


def _with_kinds(scored: ScoredSet) -> ScoredSet:
    """The scored set; all pneumonia is of unknown kind where one of the kinds is missing."""
    labels = scored.labels
    check_both_outcomes(labels)
    if (labels == BACTERIAL).any() and (labels == VIRAL).any():
        return scored
    return replace(scored, labels=np.where(labels == NORMAL, NORMAL, PNEUMONIA_UNKNOWN_KIND))


def _to_prevalence(
    fitted: Calibration, thresholds: Thresholds, scored: ScoredSet, prevalence: float
) -> tuple[Calibration, Thresholds]:
    """Calibration and thresholds whose probabilities hold at `prevalence`; every finding stays as it was."""
    share = float((scored.labels != NORMAL).mean())
    shifted = fitted.pneumonia_offset + float(logit(prevalence) - logit(share))
    threshold = float(prior_corrected(thresholds.pneumonia, share, prevalence))
    return replace(fitted, pneumonia_offset=shifted), replace(thresholds, pneumonia=threshold)


def _spec(
    bundle: Bundle,
    local: LocalImages,
    use: LocalUse,
    rescored: ScoredSet,
    fitted: Calibration,
    thresholds: Thresholds,
) -> ModelSpec:
    old = bundle.spec
    # The sets name kinds of pneumonia.
    sets = old.conformal if of_known_kind(rescored.labels).any() else None
    return replace(
        old,
        thresholds=thresholds,
        calibration=fitted.after(old.calibration or UNCALIBRATED),
        conformal=fit_conformal(rescored, thresholds, sets.coverage) if sets else None,
        domain=_domain(old.domain, local),
        training={
            **old.training,
            "recalibration": {
                "bundle": bundle.model_id,
                "images": len(rescored.labels),
                "patients": local.patients,
                "sensitivity": use.sensitivity,
                "prevalence": use.prevalence,
            },
        },
    )


def _domain(old: Domain | None, local: LocalImages) -> Domain | None:
    if old is None or local.domain_scores is None:
        return None
    ages = [age for age in local.ages_years if age is not None]
    # Ages are stated in completed years.
    known = (float(np.floor(min(ages))), float(np.floor(max(ages)))) if ages else old.ages_years
    return Domain(choose_threshold(local.domain_scores), known)


def _provenance(bundle: Bundle, local: LocalImages, spec: ModelSpec) -> Provenance:
    training: dict[str, Any] = spec.training
    seen = read_training_images(bundle) or TrainingImages(frozenset(), frozenset())
    return Provenance(
        data_fingerprint=spec.data_fingerprint,
        data_set=training.get("data_set", "other"),
        weights=training.get("recipe", {}).get("weights", "unknown"),
        training=training,
        images=replace(seen, validation=seen.validation | local.hashes),
        ages_years=spec.domain.ages_years if spec.domain else None,
    )

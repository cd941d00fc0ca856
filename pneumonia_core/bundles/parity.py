"""Parity: how exactly an exported engine reproduces the float32 Keras model."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from pneumonia_core.bundles.engines import (
    BATCH_SIZE,
    CPU_PRECISIONS,
    Engine,
    EngineReport,
    Scores,
    files_prefix,
)
from pneumonia_core.bundles.exported import open_exported
from pneumonia_core.domain import Domain, in_domain
from pneumonia_core.findings import BACTERIAL, NORMAL, VIRAL, Thresholds, bacterial_share, findings
from pneumonia_core.system.environment import cpu_has_bfloat16

if TYPE_CHECKING:
    # Keras is only imported where a bundle is written.
    import keras


# Images that suffice to measure an engine on.
PARITY_IMAGES: Final = 512


@dataclass(frozen=True)
class ParityImages:
    """Validation images uint8 [N, H, W] and labels int [N], on which engines and Keras are compared."""

    images: np.ndarray
    labels: np.ndarray


def predict(model: "keras.Model", images: np.ndarray) -> Scores:
    """A Keras scoring model's output for images uint8 [N, H, W]."""
    batches = [model.predict_on_batch(images[i : i + BATCH_SIZE]) for i in range(0, len(images), BATCH_SIZE)]
    domains = [np.asarray(batch["domain"]) for batch in batches if "domain" in batch]
    return Scores(
        np.concatenate([np.asarray(batch["probabilities"]) for batch in batches]),
        np.concatenate(domains) if domains else None,
    )


def measure_engine(
    folder: Path,
    name: str,
    thresholds: Thresholds,
    domain: Domain | None,
    validation: ParityImages,
    reference: Scores,
    precisions: Sequence[str] = (),
) -> dict[str, EngineReport]:
    """Parity and speed of one engine, in every precision that it and this CPU compute in, or in `precisions`.

    `folder` holds the exported engines; `reference` are the scores of the Keras model for the images.
    """
    reports = {}
    for precision in precisions or CPU_PRECISIONS[name]:
        is_there = any(folder.glob(f"{files_prefix(name, precision)}*"))
        if is_there and (precision != "bfloat16" or cpu_has_bfloat16()):
            engine = open_exported(
                folder, name, precision, validation.images.shape[1], threads=len(os.sched_getaffinity(0))
            )
            report = _compare(engine, thresholds, domain, validation, reference)
            if precision == "float16":
                # A CPU is slow in what GPUs compute in: that says nothing of either.
                report = replace(report, images_per_s=0.0)
            reports[engine.precision] = report
    return reports


def _compare(
    engine: Engine,
    thresholds: Thresholds,
    domain: Domain | None,
    validation: ParityImages,
    reference: Scores,
) -> EngineReport:
    images, labels = validation.images, validation.labels
    engine(images[:BATCH_SIZE])
    started = time.perf_counter()
    scores = engine(images)
    seconds = time.perf_counter() - started
    found, expected = (findings(each.probabilities, thresholds) for each in (scores, reference))
    return EngineReport(
        precision=engine.precision,
        images_per_s=round(len(images) / seconds, 1),
        auroc_difference=_auroc_difference(labels, scores, reference),
        findings_agreement=float(np.mean(found == expected)),
        largest_difference=float(np.abs(scores.probabilities - reference.probabilities).max()),
        domain_agreement=_domain_agreement(domain, scores, reference),
        auroc_bacterial_difference=_auroc_bacterial_difference(labels, scores, reference),
    )


def _domain_agreement(domain: Domain | None, scores: Scores, reference: Scores) -> float | None:
    if domain is None or scores.domain is None or reference.domain is None:
        return None
    ages_unknown = [None] * len(scores.domain)
    found, expected = (in_domain(domain, each, ages_unknown) for each in (scores.domain, reference.domain))
    return float(np.mean(found == expected))


def _auroc_bacterial_difference(labels: np.ndarray, scores: Scores, reference: Scores) -> float | None:
    """The difference between bacterial and viral; None where the labels do not hold both."""
    known = (labels == BACTERIAL) | (labels == VIRAL)
    bacterial = labels[known] == BACTERIAL
    if bacterial.all() or not bacterial.any():
        return None
    shares = (bacterial_share(each.probabilities)[known] for each in (scores, reference))
    return _difference_of_aurocs(bacterial, *shares)


def _auroc_difference(labels: np.ndarray, scores: Scores, reference: Scores) -> float:
    diseased = labels != NORMAL
    if diseased.all() or not diseased.any():
        raise ValueError("parity needs images with and without pneumonia")
    return _difference_of_aurocs(
        diseased, *(1 - each.probabilities[:, NORMAL] for each in (scores, reference))
    )


def _difference_of_aurocs(positive: np.ndarray, scores: np.ndarray, reference: np.ndarray) -> float:
    # Only writing a bundle needs scikit-learn, whose import takes a second; scoring opens bundles too.
    from sklearn.metrics import roc_auc_score

    return float(abs(roc_auc_score(positive, scores) - roc_auc_score(positive, reference)))

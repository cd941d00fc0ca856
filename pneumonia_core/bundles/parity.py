"""Parity: how an exported engine compares with the float32 Keras model that it was exported from."""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from pneumonia_core.bundles.engines import BATCH_SIZE, EngineReport, Scores, open_exported
from pneumonia_core.domain import Domain, in_domain
from pneumonia_core.findings import NORMAL, Thresholds, findings
from pneumonia_core.system.environment import cpu_has_bfloat16


def predict(model: Any, images: np.ndarray) -> Scores:
    """What a Keras scoring model gives for uint8 [N, H, W]."""
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
    images: np.ndarray,
    labels: np.ndarray,
    reference: Scores,
) -> EngineReport:
    """Parity and speed at bfloat16 where the CPU has it; at float32 where that fails parity.

    `folder` holds the exported engines; `reference` is what the Keras model gives for the held-back `images`
    uint8 [N, H, W] with `labels` int [N].
    """
    precisions = ["bfloat16", "float32"] if cpu_has_bfloat16() else ["float32"]
    for precision in precisions:
        engine = open_exported(folder, name, precision, images.shape[1], threads=_cpus())
        engine(images[:BATCH_SIZE])
        started = time.perf_counter()
        scores = engine(images)
        images_per_s = len(images) / (time.perf_counter() - started)
        ours, theirs = (findings(each.probabilities, thresholds) for each in (scores, reference))
        measured = EngineReport(
            precision=precision,
            images_per_s=round(images_per_s, 1),
            auroc_difference=_auroc_difference(labels, scores.probabilities, reference.probabilities),
            findings_agreement=float(np.mean(ours == theirs)),
            largest_difference=float(np.abs(scores.probabilities - reference.probabilities).max()),
            domain_agreement=_domain_agreement(domain, scores, reference),
        )
        if measured.parity_passed:
            break
    return measured


def _domain_agreement(domain: Domain | None, scores: Scores, reference: Scores) -> float | None:
    if domain is None or scores.domain is None or reference.domain is None:
        return None
    unknown = [None] * len(scores.domain)
    ours, theirs = (in_domain(domain, each, unknown) for each in (scores.domain, reference.domain))
    return float(np.mean(ours == theirs))


def _auroc_difference(labels: np.ndarray, probabilities: np.ndarray, reference: np.ndarray) -> float:
    # Scoring opens bundles too, and needs none of it: importing it takes a second.
    from sklearn.metrics import roc_auc_score

    diseased = labels != NORMAL
    if diseased.all() or not diseased.any():
        raise ValueError("parity needs held-back images with and without pneumonia")
    ours = roc_auc_score(diseased, 1 - probabilities[:, NORMAL])
    return float(abs(ours - roc_auc_score(diseased, 1 - reference[:, NORMAL])))


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

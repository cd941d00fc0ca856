"""What Ray Train runs on each worker: epochs of steps, validation, a checkpoint after each."""

import numpy as np


def validation_figures(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    from sklearn.metrics import log_loss, roc_auc_score

    from pneumonia_core.findings import BACTERIAL, NORMAL, bacterial_share, p_pneumonia

    ill = labels != NORMAL
    share = bacterial_share(probabilities[ill])
    return {
        "validation_loss": float(log_loss(labels, probabilities, labels=[0, 1, 2])),
        "auroc_pneumonia": float(roc_auc_score(ill, p_pneumonia(probabilities))),
        "auroc_bacterial": float(roc_auc_score(labels[ill] == BACTERIAL, share)),
        "accuracy_three_class": float(np.mean(probabilities.argmax(axis=1) == labels)),
    }

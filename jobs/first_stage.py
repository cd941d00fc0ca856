"""The head's stage of a training, on every worker: features of a trunk as loaded, computed once, and a head on them."""

from typing import Any

import numpy as np

from pneumonia_core.recipe import Recipe


def fit_first_head(learner: Any, shard: Any, recipe: Recipe, class_weights: tuple[float, ...]) -> int:
    """Give the learner a head that fits its trunk; a collective operation. Returns how many images it was fitted to."""
    from pneumonia_core.head import fit_head

    nothing = np.zeros((0, recipe.image_size, recipe.image_size), np.uint8)
    features, labels = [learner.features(nothing)], [np.zeros(0, np.int64)]
    for batch in shard.iter_batches(batch_size=recipe.batch_size, batch_format="numpy", prefetch_batches=2):
        features.append(learner.features(batch["image"]))
        labels.append(batch["label"])
    head = fit_head(
        np.concatenate(features),
        np.concatenate(labels),
        class_weights,
        recipe.label_smoothing,
        learner.total,
    )
    learner.set_head(*head)
    return int(learner.total(np.float64(sum(map(len, labels)))))

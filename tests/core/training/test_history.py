"""Which epoch was the best, and when a training ends."""

import pytest

from pneumonia_core.training.history import EpochFigures, best_epoch, is_over, stopped_early
from pneumonia_core.training.recipe import Recipe


def history(*aurocs):
    return [
        EpochFigures(n, 0.5, 1e-3, 40.0, 0.1, 0.4, auroc, 0.5, 0.8, 2.0) for n, auroc in enumerate(aurocs, 1)
    ]


def test_best_epoch_is_the_first_with_the_highest_mean():
    assert best_epoch([]) == 0
    assert best_epoch(history(0.8, 0.9, 0.9, 0.7)) == 2


@pytest.mark.parametrize(
    ("patience", "aurocs", "early", "over"),
    [
        (0, (0.9, 0.8, 0.7), False, False),
        (2, (0.9, 0.8), False, False),
        (2, (0.9, 0.8, 0.7), True, True),
        (0, (0.9, 0.8, 0.7, 0.6), False, True),
        (3, (), False, False),
    ],
)
def test_training_ends_at_its_last_epoch_or_where_patience_runs_out(patience, aurocs, early, over):
    recipe = Recipe(epochs=4, patience=patience)
    assert stopped_early(recipe, history(*aurocs)) is early
    assert is_over(recipe, history(*aurocs)) is over

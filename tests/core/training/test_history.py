"""Which epoch was the best, and when a training ends."""

import dataclasses

import pytest

from pneumonia_core.training.history import EpochFigures, best_epoch, is_over, stopped_early
from pneumonia_core.training.recipe import Recipe


def epoch(number, pneumonia, kind=0.5):
    """An epoch of falling AUROC with these log-losses."""
    return EpochFigures(
        number, 0.5, 1e-3, 40.0, 0.1, 0.4, 1 - number / 100, 0.8, 0.8, 2.0,
        auroc_pneumonia_se=0.002, auroc_bacterial_se=0.03,
        log_loss_pneumonia=pneumonia, log_loss_bacterial=kind,
    )  # fmt: skip


def history(*losses):
    return [epoch(number, loss) for number, loss in enumerate(losses, 1)]


def test_best_epoch_is_the_first_of_the_least_log_losses_whatever_the_aurocs():
    assert best_epoch([]) == 0
    assert best_epoch(history(0.3, 0.2, 0.2, 0.4)) == 2


def test_both_log_losses_choose():
    assert best_epoch([epoch(1, 0.10, 0.6), epoch(2, 0.12, 0.5), epoch(3, 0.05, 0.7)]) == 2
    assert best_epoch([epoch(1, 0.10, None), epoch(2, 0.09, None)]) == 2


def test_differences_between_processors_choose_nothing():
    assert best_epoch(history(0.2, 0.2 - 1e-9)) == 1


def test_an_epoch_of_a_version_without_log_losses_is_never_better():
    old = EpochFigures.from_json(
        {
            "epoch": 1, "loss": 0.5, "learning_rate": 1e-3, "images_per_s": 40.0, "waited_for_data_s": 0.1,
            "validation_loss": 0.1, "auroc_pneumonia": 1.0, "auroc_bacterial": 1.0,
            "accuracy_three_class": 1.0, "validation_s": 2.0,
        }
    )  # fmt: skip
    assert best_epoch([old, epoch(2, 0.9)]) == 2
    assert "auroc_pneumonia_se" not in old.scalars()
    assert old.describe() == "validation AUROC 1.0000 pneumonia vs normal, 1.0000 bacterial vs viral"


def test_each_auroc_is_phrase_with_its_standard_error():
    phrase = "validation AUROC 0.9900 ± 0.0020 pneumonia vs normal"
    assert epoch(1, 0.1).describe() == f"{phrase}, 0.8000 ± 0.0300 bacterial vs viral"
    unknown = dataclasses.replace(epoch(1, 0.1, None), auroc_bacterial=None, auroc_bacterial_se=None)
    assert unknown.describe() == phrase


@pytest.mark.parametrize(
    ("patience", "losses", "early", "over"),
    [
        (0, (0.1, 0.2, 0.3), False, False),
        (2, (0.1, 0.2), False, False),
        (2, (0.1, 0.2, 0.3), True, True),
        (0, (0.1, 0.2, 0.3, 0.4), False, True),
        (3, (), False, False),
    ],
)
def test_training_ends_at_its_last_epoch_or_where_patience_runs_out(patience, losses, early, over):
    recipe = Recipe(epochs=4, patience=patience)
    assert stopped_early(recipe, history(*losses)) is early
    assert is_over(recipe, history(*losses)) is over

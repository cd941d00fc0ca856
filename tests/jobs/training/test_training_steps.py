"""A worker's steps: how often the host waits for the device, and how workers talk to each other."""

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework.ops import _EagerTensorBase

from jobs.training.worker import steps as steps_module
from jobs.training.worker.checkpoints import CheckpointClock
from jobs.training.worker.devices import PACK_BYTES, communication, shares_moments, xla_error
from jobs.training.worker.steps import take_steps
from pneumonia_core.networks.classifier import build_classifier
from pneumonia_core.training.augment import draw
from pneumonia_core.training.checkpoint import Checkpoint, InitialState, load_checkpoint, save_checkpoint
from pneumonia_core.training.history import EpochProgress
from pneumonia_core.training.learner import Learner, TrainingBatch
from pneumonia_core.training.loss import ClassWeights
from pneumonia_core.training.recipe import Recipe

SIZE, IMAGES = 32, 4


RECIPE = Recipe("resnet18", "none", SIZE, batch_size=IMAGES, precision="float32")


@pytest.fixture(scope="module")
def learner():
    return new_learner()


def new_learner():
    keras.utils.set_random_seed(1)
    weights = build_classifier("resnet18", SIZE).get_weights()
    return Learner(RECIPE, weights, "layer4", ClassWeights(1, 1, 1, 1), 4)


@pytest.fixture
def fetches(monkeypatch):
    """The values that the host has fetched from the device, one entry each."""
    fetched = []
    fetch = _EagerTensorBase._numpy  # all ways of a tensor to the host lead through it

    def counted(tensor):
        fetched.append(tensor.shape)
        return fetch(tensor)

    monkeypatch.setattr(_EagerTensorBase, "_numpy", counted)
    return fetched


def batches(count):
    rng = np.random.default_rng(0)
    for _ in range(count):
        images = rng.integers(0, 256, (IMAGES, SIZE, SIZE), dtype=np.uint8)
        labels = rng.integers(0, 3, IMAGES).astype(np.int32)
        yield TrainingBatch(images, labels, draw(rng, IMAGES, SIZE))


def test_the_host_fetches_as_few_losses_of_a_long_epoch_as_of_a_short_one(learner, fetches, monkeypatch):
    monkeypatch.setattr(steps_module, "PROGRESS_INTERVAL_S", 600)
    counts = []
    for steps in (3, 12):
        fetches.clear()
        take_steps(learner, batches(steps), steps)
        counts.append(len(fetches))
    assert counts[0] == counts[1] <= 2


def test_the_driver_hears_of_each_loss_that_is_due_and_the_epoch_of_the_sum(learner, monkeypatch):
    monkeypatch.setattr(steps_module, "PROGRESS_INTERVAL_S", -1)
    heard = []
    done = take_steps(learner, batches(5), 5, lambda step, loss: heard.append((step, loss)))
    assert [step for step, _ in heard] == [1, 2, 3, 4, 5]
    assert done.loss == pytest.approx(sum(loss for _, loss in heard), rel=1e-12)


def test_a_training_that_goes_on_at_a_checkpoint_within_an_epoch_ends_as_if_it_had_not_stopped(
    learner, tmp_path
):
    """One of 7 steps, with a checkpoint after the third, and another learner's last four."""
    whole, given, paused = new_learner(), list(batches(7)), []
    initial = InitialState(RECIPE, "layer4", None, 0)

    def pause(done):
        paused.append(done.steps)
        if done.steps == 3:
            save_checkpoint(tmp_path, Checkpoint(initial, (), whole.shared_state(), progress=done))
        return 2

    expected = take_steps(whole, iter(given), 7, pause=pause)
    assert paused == [1, 3, 5]
    found = load_checkpoint(tmp_path)
    assert (found.progress.steps, found.progress.timed_steps) == (3, 2)
    # It has taken other steps before.
    learner.restore(found.state)
    taken = iter(given[3:])
    done = take_steps(learner, taken, 7, before=found.progress)
    assert next(taken, None) is None
    assert (done.steps, done.timed_steps) == (7, 5)
    assert done.seconds > found.progress.seconds
    assert done.loss == pytest.approx(expected.loss, rel=1e-5)
    resumed, undisturbed = learner.state(), whole.state()
    assert {name.partition(".")[0] for name in resumed} == {"classifier", "averaged", "optimizer", "random"}
    for name, values in undisturbed.items():
        np.testing.assert_allclose(resumed[name], values, atol=1e-5, err_msg=name)


def test_workers_make_a_checkpoint_at_the_same_step_by_the_clock_of_the_first():
    answers = []

    def first_total(answer):
        answers.append(answer)
        return answer

    done = EpochProgress(steps=101, timed_steps=100, seconds=50.0)
    # Longer ago than the interval; just begun; one whose tenth lasts four steps.
    for interval_s, expected in ((1e-9, (True, 1)), (1e9, (False, 100)), (20.0, (False, 4))):
        first = CheckpointClock(interval_s, True, first_total)
        other = CheckpointClock(1.0, False, lambda nothing: nothing + answers[-1])
        assert first.ask(done) == other.ask(replace(done, seconds=1.0)) == expected
    assert CheckpointClock(1e9, True, first_total).ask(EpochProgress(steps=1)) == (False, 1)


def test_gradients_travel_through_nccl_where_and_only_where_there_are_gpus():
    nccl = tf.distribute.experimental.CommunicationImplementation.NCCL
    assert [communication(gpus).implementation == nccl for gpus in (0, 1, 8)] == [False, True, True]
    assert {communication(gpus).bytes_per_pack for gpus in (0, 8)} == {PACK_BYTES}


def test_xla_is_found_where_it_compiles():
    assert xla_error() is None


def test_gpus_of_few_images_share_their_moments_and_workers_on_cpus_keep_their_own():
    cases = [(32, 4, 0), (32, 4, 1), (32, 4, 4), (64, 4, 4), (8, 1, 1)]
    assert [shares_moments(*case) for case in cases] == [False, True, True, False, False]

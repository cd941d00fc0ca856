"""A worker's steps: how often the host waits for the device, and how workers talk to each other."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework.ops import _EagerTensorBase

from jobs.training.worker import steps as steps_module
from jobs.training.worker.devices import PACK_BYTES, communication, shares_moments, xla_error
from jobs.training.worker.steps import take_steps
from pneumonia_core.networks.classifier import build_classifier
from pneumonia_core.training.augment import draw
from pneumonia_core.training.learner import Learner, TrainingBatch
from pneumonia_core.training.loss import ClassWeights
from pneumonia_core.training.recipe import Recipe

SIZE, IMAGES = 32, 4


@pytest.fixture(scope="module")
def learner():
    keras.utils.set_random_seed(1)
    recipe = Recipe("resnet18", "none", SIZE, batch_size=IMAGES, precision="float32")
    weights = build_classifier("resnet18", SIZE).get_weights()
    return Learner(recipe, weights, "layer4", ClassWeights(1, 1, 1, 1), 4)


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


def test_gradients_travel_through_nccl_where_and_only_where_there_are_gpus():
    nccl = tf.distribute.experimental.CommunicationImplementation.NCCL
    assert [communication(gpus).implementation == nccl for gpus in (0, 1, 8)] == [False, True, True]
    assert {communication(gpus).bytes_per_pack for gpus in (0, 8)} == {PACK_BYTES}


def test_xla_is_found_where_it_compiles():
    assert xla_error() is None


def test_gpus_of_few_images_share_their_moments_and_workers_on_cpus_keep_their_own():
    cases = [(32, 4, 0), (32, 4, 1), (32, 4, 4), (64, 4, 4), (8, 1, 1)]
    assert [shares_moments(*case) for case in cases] == [False, True, True, False, False]

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import softmax
from support.images.counted import counted_parts
from support.paths import REPOSITORY

from pneumonia_core.bundles.tensorflow_runtime.engine import set_graph_precision
from pneumonia_core.findings import PNEUMONIA_UNKNOWN_KIND
from pneumonia_core.networks.classifier import build_classifier
from pneumonia_core.networks.prefilter import smooth
from pneumonia_core.training.augment import Augmentation, draw
from pneumonia_core.training.learner import Learner, TrainingBatch
from pneumonia_core.training.loss import ClassWeights, HierarchicalLoss
from pneumonia_core.training.optimizer import FIRST_FACTOR, STEPS_TO_GROW, LossScale
from pneumonia_core.training.recipe import Recipe
from pneumonia_core.training.validation import ValidationShard

pytestmark = pytest.mark.usefixtures("exact_float32")
SIZE, STEPS = 32, 4
WEIGHTS = ClassWeights(1.5, 0.75, 0.5, 2.0)
STILL = Augmentation(
    translation=0, rotation_deg=0, zoom=(1, 1), flip=False, contrast=0, brightness=0, encoder_share=0
)


def recipe(**changes):
    settings = {"network": "resnet18", "image_size": SIZE, "batch_size": 8, "epochs": 1, "dropout": 0.0}
    return Recipe(**{**settings, "precision": "float32", **changes})


@functools.cache
def initial_weights():
    """Drawn once: Keras asks Python's generator for each layer's seed, which other threads draw from, too."""
    keras.utils.set_random_seed(3)
    return build_classifier("resnet18", SIZE).get_weights()


def learner(
    first_stage="conv1",
    strategy=None,
    loss_scale=None,
    weights_of_classes=WEIGHTS,
    shared_moments=False,
    compiled=False,
    **changes,
):
    weights = initial_weights()
    keras.utils.set_random_seed(3)
    return Learner(
        recipe(**changes),
        weights,
        first_stage,
        weights_of_classes,
        STEPS,
        strategy,
        loss_scale,
        shared_moments,
        compiled,
    )


@pytest.fixture(scope="module")
def start():
    """The averaged weights before the first step."""
    return learner("layer4").averaged.get_weights()


@pytest.fixture(scope="module")
def in_float32():
    """A learner after STEPS steps in float32; the tests only read it."""
    set_graph_precision("float32")
    return trained("float32")


def steps_done(one):
    return int(one.state()["optimizer.0000"])


def batch(step, rows=slice(None)):
    """One of a few fixed global batches of 8, or some rows of it; not augmented."""
    rng = np.random.default_rng(step)
    images = rng.integers(0, 256, (8, SIZE, SIZE), dtype=np.uint8)[rows]
    labels = rng.integers(0, 3, 8).astype(np.int32)[rows]
    return TrainingBatch(images, labels, draw(rng, len(images), SIZE, STILL))


def test_steps_lower_the_loss_of_a_batch_they_repeat():
    one = learner("layer4", learning_rate=2e-3, epochs=5)
    losses = [float(one.step(batch(0))) for _ in range(15)]
    assert losses[-1] < 0.5 * losses[0]


def test_the_loss_is_that_of_the_recipe_over_the_global_batch():
    settings = {"label_smoothing": 0.1, "kind_weight": 0.5, "false_bacterial": 0.2, "false_viral": 0.1}
    one, given = learner("head", **settings), batch(0)
    given.labels[0] = PNEUMONIA_UNKNOWN_KIND
    logits = one.classifier(smooth(given.images), training=True)
    expected = HierarchicalLoss(WEIGHTS, 0.1, 0.5, 0.2, 0.1).total(tf.constant(given.labels), logits)
    assert float(one.step(given)) == pytest.approx(float(expected) / 8, rel=1e-4)


def test_without_the_filter_neither_training_nor_validation_sees_it():
    one, given = learner("head", smooth=False), batch(0)
    np.testing.assert_array_equal(one.augmented(given), given.images)
    np.testing.assert_allclose(
        one.averaged.logits(given.images), np.asarray(one.averaged.model(given.images)), atol=1e-4
    )


def test_learning_rate_warms_up_and_falls_along_a_cosine_to_zero():
    one = learner("head", epochs=4, learning_rate=1e-3)
    rates = []
    for step in range(4 * STEPS):
        one.step(batch(step % STEPS))
        rates.append(one.learning_rate)
    assert np.argmax(rates) == 1  # half an epoch of warm-up is two steps, and the batch is a quarter of 32
    assert max(rates) == pytest.approx(1e-3 / 2)
    assert rates[1:] == sorted(rates[1:], reverse=True)
    assert rates[-1] == pytest.approx(0.0, abs=1e-9)


def test_frozen_stages_do_not_move_and_the_average_follows_the_rest():
    one = learner("layer4", averaging=0.5)
    before = one.classifier.get_layer("layer3.0.conv1").get_weights()[0]
    first = one.classifier.get_layer("layer4.0.conv1").get_weights()[0]
    expected = first
    for step in range(3):
        one.step(batch(step))
        decay = min(0.5, (step + 1) / (step + 10))
        current = one.classifier.get_layer("layer4.0.conv1").get_weights()[0]
        expected = decay * expected + (1 - decay) * current
    np.testing.assert_array_equal(before, one.classifier.get_layer("layer3.0.conv1").get_weights()[0])
    np.testing.assert_allclose(
        one.averaged.model.get_layer("layer4.0.conv1").get_weights()[0], expected, atol=1e-6
    )
    assert np.abs(expected - first).max() > 0


def test_logits_are_those_of_the_averaged_network_for_smoothed_images_of_any_number():
    one = learner("head")
    np.testing.assert_allclose(one.augmented(batch(0)), np.asarray(smooth(batch(0).images)), atol=0.51)
    one.step(batch(0))
    images = np.concatenate([batch(step).images for step in range(3)])[:19]
    np.testing.assert_allclose(
        one.averaged.logits(images), np.asarray(one.averaged.model(smooth(images))), atol=1e-4
    )
    assert one.averaged.logits(images[:0]).shape == (0, 3)
    # A worker scores its share as one array, and has no other images than those that it is at.
    labels = np.arange(19) % 3
    for rank in range(2):
        parts, held = counted_parts(images, [4])
        scored = ValidationShard(parts, labels, rank, 2).measure(one).probabilities
        expected = softmax(one.averaged.logits(images[rank::2]).astype(np.float64), axis=1)
        np.testing.assert_array_equal(scored[rank::2], expected.astype(np.float32))
        assert held.most <= 8


def test_a_restored_learner_goes_on_as_if_it_had_never_stopped(tmp_path):
    whole, first = learner("layer4"), learner("layer4")
    for step in range(2):
        whole.step(batch(step))
        first.step(batch(step))
    np.savez(tmp_path / "state.npz", **first.state())
    second = learner("layer4", seed=9)
    with np.load(tmp_path / "state.npz", allow_pickle=False) as state:
        second.restore(dict(state))
    for step in range(2, 4):
        whole.step(batch(step))
        second.step(batch(step))
    assert steps_done(second) == 4
    for ours, theirs in zip(second.averaged.get_weights(), whole.averaged.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.slow
def test_a_step_that_xla_compiles_is_the_plain_one():
    """Some 20 s, nearly all of them the compiler's. Without dropout: XLA draws other random numbers."""
    plain, compiled = (learner("layer4", compiled=one) for one in (False, True))
    for step in range(2):
        given = batch(step)
        losses = [float(one.step(given)) for one in (plain, compiled)]
        assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    for name, ours in plain.state().items():
        np.testing.assert_allclose(compiled.state()[name], ours, atol=2e-4, err_msg=name)


@pytest.mark.slow
def test_float16_trains_as_float32_does(start, in_float32):
    full, half = in_float32.averaged.get_weights(), trained("mixed_float16").averaged.get_weights()
    moved = sum(np.abs(ours - before).sum() for ours, before in zip(full, start, strict=True))
    apart = sum(np.abs(ours - theirs).sum() for ours, theirs in zip(full, half, strict=True))
    assert 0 < apart < 0.1 * moved


def test_a_step_whose_gradients_leave_float16_moves_nothing_and_the_next_is_scaled_less():
    scale = LossScale(first_factor=2.0**100)
    one = learner("layer4", loss_scale=scale, precision="mixed_float16", weight_decay=0.0)
    before = one.classifier.get_layer("layer4.0.conv1").kernel.numpy()
    assert np.isfinite(float(one.step(batch(0))))
    np.testing.assert_array_equal(before, one.classifier.get_layer("layer4.0.conv1").kernel.numpy())
    assert (float(scale.factor), steps_done(one)) == (2.0**99, 1)
    scale.factor.assign(2.0**8)
    one.step(batch(1))
    assert np.abs(before - one.classifier.get_layer("layer4.0.conv1").kernel.numpy()).max() > 0
    assert float(scale.factor) == 2.0**8
    restored = LossScale()
    again = learner("layer4", loss_scale=restored, precision="mixed_float16")
    again.restore(one.state())
    assert [int(variable) for variable in restored.variables] == [2**8, 1]


def test_the_scale_of_the_loss_grows_after_many_steps_that_fit():
    scale = LossScale()
    scale.variables[1].assign(STEPS_TO_GROW - 1)
    scale.adjust(tf.constant(True))
    assert [float(variable) for variable in scale.variables] == [2 * FIRST_FACTOR, 0]


def test_other_workers_go_on_with_random_numbers_of_their_own():
    first, second = learner("layer4", dropout=0.5), learner("layer4", dropout=0.5)
    first.step(batch(0))
    own = second.state()["random.0000"]
    second.restore({**second.state(), "random.0000": np.array([99, 0], own.dtype)})
    second.restore(first.state(), rank=1)
    theirs = first.state()["random.0000"]
    assert second.state()["random.0000"].tolist() == [99, theirs[1]]
    assert theirs[1] > 0


def test_two_workers_train_as_one_with_the_whole_batch(start, in_float32, tmp_path, two_ports):
    """Two processes with half of each batch against one with all of it; in mixed precision only about so."""
    cluster = {"worker": [f"127.0.0.1:{port}" for port in two_ports]}
    processes = []
    for rank in (0, 1):
        settings = {"cluster": cluster, "task": {"type": "worker", "index": rank}}
        environment = {
            **os.environ,
            "TF_CONFIG": json.dumps(settings),
            "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}",
        }
        command = [sys.executable, __file__, "worker", str(rank), str(tmp_path / str(rank))]
        processes.append(subprocess.Popen(command, env=environment, cwd=REPOSITORY))
    try:
        assert [process.wait(timeout=900) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    ones = {"float32": in_float32, "mixed_bfloat16": trained("mixed_bfloat16")}
    for precision, most_apart in (("float32", 0.001), ("mixed_bfloat16", 0.1)):
        alone, file = ones[precision].averaged.get_weights(), f"{precision}.npz"
        with np.load(tmp_path / "0" / file) as first, np.load(tmp_path / "1" / file) as second:
            assert float(first["total"]) == float(second["total"]) == 3.0
            for name in first.files:
                np.testing.assert_array_equal(first[name], second[name])
            together = [first[name] for name in sorted(first.files) if name.startswith("averaged.")]
        moved = sum(np.abs(ours - before).sum() for ours, before in zip(alone, start, strict=True))
        apart = sum(np.abs(ours - theirs).sum() for ours, theirs in zip(alone, together, strict=True))
        assert moved > 0
        assert apart < most_apart * moved, precision


@pytest.mark.slow
def test_one_worker_with_two_devices_trains_as_with_one(in_float32, tmp_path):
    """Two logical devices of this processor, in a process of their own, against one."""
    root = REPOSITORY
    path = f"{root}:{root / 'tests'}"
    command = [sys.executable, __file__, "devices", str(tmp_path / "two.npz")]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, cwd=root, check=True, timeout=900)
    with np.load(tmp_path / "two.npz") as two:
        assert float(two["total"]) == 3.0
        assert len(two["statistics"]) == 2
        np.testing.assert_array_equal(two["statistics"][0], two["statistics"][1])
        # A state with shared statistics was taken before, and changed nothing.
        assert two["kept"]
        assert np.abs(two["statistics"]).max() > 0
        assert (two["moved"].tolist(), float(two["factor"])) == ([False, True], FIRST_FACTOR / 2)
        for name, ours in in_float32.state().items():
            if name.startswith("averaged."):
                np.testing.assert_allclose(two[name], ours, atol=1e-6)
        for name, ours in normalizing().state().items():
            if name.startswith(("averaged.", "classifier.")):
                np.testing.assert_allclose(two[f"shared.{name}"], ours, atol=1e-4, err_msg=name)


@pytest.fixture
def two_ports():
    import socket

    sockets = [socket.socket() for _ in range(2)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def trained(precision, strategy=None, rows=slice(None)):
    one = learner("layer4", strategy, precision=precision, learning_rate=1e-3)
    keep_statistics(one)  # half a batch has other statistics than a whole one, which is meant
    for step in range(STEPS):
        one.step(batch(step, rows))
    return one


def keep_statistics(one):
    for layer in one.classifier.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False


def as_worker(rank, output):
    tf.config.threading.set_inter_op_parallelism_threads(2)
    strategy, rows = tf.distribute.MultiWorkerMirroredStrategy(), slice(int(rank), None, 2)
    Path(output).mkdir()
    for precision in ("float32", "mixed_bfloat16"):
        one = trained(precision, strategy, rows)
        one.share_statistics()
        total = one.total(np.array(float(rank) + 1))
        np.savez(Path(output) / f"{precision}.npz", total=total, **one.state())


def on_two_devices(output):
    (processor,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    one = trained("float32", strategy)
    apart = normalizing(strategy)
    moving = apart.classifier.get_layer("layer4.0.bn1").moving_mean.value

    def copies():
        return [copy.numpy() for copy in strategy.experimental_local_results(moving)]

    before, saved = copies(), apart.shared_state()
    kept = np.array_equal(before, copies()) and not np.array_equal(before[0], before[1])
    apart.share_statistics()
    statistics = copies()
    kept = kept and all(np.array_equal(saved[name], values) for name, values in apart.state().items())
    shared = {
        f"shared.{name}": value for name, value in normalizing(strategy, shared_moments=True).state().items()
    }
    total = one.total(np.array(3.0))
    np.savez(
        output, total=total, statistics=statistics, kept=kept, **shared, **in_float16(strategy), **one.state()
    )


def normalizing(strategy=None, **options):
    """A learner after STEPS steps in which batch normalisation learns too."""
    one = learner("layer4", strategy, **options)
    for step in range(STEPS):
        one.step(batch(step))
    return one


def in_float16(strategy):
    """Whether each of two steps moved a kernel; on one device the gradients of the first are infinite.

    The loss overflows, not an image: some processors' float16 ReLU gives 0 for NaN.
    """
    weights = ClassWeights(1.0, 1.0, 1.0, np.inf)
    one = learner("layer4", strategy, None, weights, precision="mixed_float16", weight_decay=0.0)
    keep_statistics(one)
    kernel = one.classifier.get_layer("layer4.0.conv1").kernel
    moved = []
    for step, last_label in enumerate((2, 1)):
        given, before = batch(step), kernel.numpy()
        given.labels[:] = [0, 1, 0, 1, 0, 1, 0, last_label]
        one.step(given)
        moved.append(not np.array_equal(before, kernel.numpy()))
    return {"moved": moved, "factor": float(one.state()["loss_scale.0000"])}


if __name__ == "__main__":
    {"worker": as_worker, "devices": on_two_devices}[sys.argv[1]](*sys.argv[2:])

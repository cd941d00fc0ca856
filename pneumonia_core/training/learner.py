"""A network being trained: the step, the average of its weights, what a checkpoint holds. No Ray in here."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from pneumonia_core.findings import CLASSES
from pneumonia_core.networks.classifier import build_classifier, train_from
from pneumonia_core.networks.prefilter import smooth
from pneumonia_core.training.augment import Augmenter
from pneumonia_core.training.batch_norm import with_fused_normalization
from pneumonia_core.training.optimizer import LossScale, all_finite, staged_optimizer
from pneumonia_core.training.recipe import Recipe


@dataclass(frozen=True)
class TrainingBatch:
    """What one step on one worker takes: uint8 [B, H, W], int32 [B], and parameters for Augmenter."""

    images: np.ndarray
    labels: np.ndarray
    drawn: dict[str, np.ndarray]

    def first(self, count: int) -> "TrainingBatch":
        """The same of its first images."""
        return self._of(slice(count))

    def part(self, number: int, parts: int) -> "TrainingBatch":
        """The same of one of so many equal parts of its images."""
        size = len(self.labels) // parts
        return self._of(slice(number * size, (number + 1) * size))

    def _of(self, some: slice) -> "TrainingBatch":
        drawn = {name: values[some] for name, values in self.drawn.items()}
        return TrainingBatch(self.images[some], self.labels[some], drawn)


class Learner:
    """A classifier with its optimiser under a distribution strategy, stepped batch by batch.

    `averaged` is a second classifier that holds the exponential moving average of the first one's weights;
    it is what is evaluated and kept. All workers must call `step`, `share_statistics` and `total` alike:
    each is a collective operation. A worker with several GPUs gives each a part of its batch. `fresh_from` is the first
    stage whose weights were not loaded, None where all were: those before it train at lower rates.
    """

    def __init__(
        self,
        recipe: Recipe,
        initial_weights: Sequence[np.ndarray],
        first_stage: str,
        class_weights: Sequence[float],
        steps_per_epoch: int,
        strategy: Any = None,
        fresh_from: str | None = "conv1",
    ) -> None:
        self._recipe = recipe
        self._strategy = strategy or tf.distribute.get_strategy()
        devices = strategy.extended.worker_devices if strategy else ()
        self._devices = max(1, len(devices))
        self._class_weights = tf.constant(class_weights, tf.float32)
        # Between GPUs, TensorFlow's NCCL adds up no bfloat16.
        on_gpus = any("GPU" in device for device in devices)
        self._compressed = recipe.precision == "mixed_bfloat16" and not on_gpus
        self._augment = Augmenter(recipe.image_size, recipe.seed)
        self.averaged = _classifier(recipe, initial_weights, first_stage)
        with self._strategy.scope():
            self.classifier = _classifier(recipe, initial_weights, first_stage)
            self._optimizer = staged_optimizer(recipe, steps_per_epoch, self.classifier, fresh_from)
        self._loss_scale = LossScale() if recipe.precision == "mixed_float16" else None
        self._moving = _moving_pairs(self.classifier, self.averaged)
        self._step = tf.function(self._distributed_step, autograph=False)
        self._share = tf.function(self._distributed_share, autograph=False)
        self._total = tf.function(self._distributed_total, autograph=False)
        self._logits = tf.function(self._averaged_logits, autograph=False)
        features = keras.Model(self.averaged.input, self.averaged.get_layer("features").output)
        self._features = tf.function(lambda images: features(smooth(images), training=False), autograph=False)

    @property
    def steps_done(self) -> int:
        return int(self._optimizer.iterations.numpy())

    @property
    def learning_rate(self) -> float:
        return float(self._optimizer.learning_rate.numpy())

    def step(self, batch: TrainingBatch) -> Any:
        """Train on this worker's part of a global batch; its part of the loss, a scalar tensor."""
        return self._step(*self._parted(batch))

    def _parted(self, batch: TrainingBatch) -> tuple[Any, Any, Any]:
        """What `step` takes, a part for each of this worker's devices."""
        if self._devices == 1:
            return batch.images, batch.labels, batch.drawn
        parts = [batch.part(number, self._devices) for number in range(self._devices)]

        def part(context: Any) -> Any:
            mine = parts[context.replica_id_in_sync_group % self._devices]
            return tf.nest.map_structure(tf.constant, (mine.images, mine.labels, mine.drawn))

        return tuple(self._strategy.experimental_distribute_values_from_function(part))

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Logits float32 [N, 3] of the averaged network for uint8 [N, H, W], smoothed as scoring does it, on this worker
        alone."""
        return np.concatenate(
            [np.zeros((0, len(CLASSES)), np.float32), *self._in_batches(self._logits, images)]
        )

    def features(self, images: np.ndarray) -> np.ndarray:
        """What the head sees, float32 [N, D], of uint8 [N, H, W] as scoring sees them, on this worker alone."""
        width = self.averaged.get_layer("features").output.shape[-1]
        return np.concatenate([np.zeros((0, width), np.float32), *self._in_batches(self._features, images)])

    def set_head(self, kernel: np.ndarray, bias: np.ndarray) -> None:
        """Begin from this head, kernel [D, 3] and bias [3]."""
        for model in (self.classifier, self.averaged):
            model.get_layer("logits").set_weights([kernel, bias])

    def augmented(self, batch: TrainingBatch) -> np.ndarray:
        """The batch's images as a step sees them, uint8 [B, H, W]."""
        return np.asarray(self._augment(batch.images, batch.drawn)).round().astype(np.uint8)

    def _in_batches(self, function: Any, images: np.ndarray) -> Iterator[np.ndarray]:
        # All of one size, so that one graph is traced.
        size = self._recipe.batch_size
        for start in range(0, len(images), size):
            part = images[start : start + size]
            padded = np.zeros((size, *images.shape[1:]), images.dtype)
            padded[: len(part)] = part
            yield function(padded).numpy()[: len(part)]

    def total(self, values: np.ndarray) -> np.ndarray:
        """The sum of `values` over all workers, on every worker."""
        return np.asarray(self._total(tf.constant(values)))

    def share_statistics(self) -> None:
        """Give all workers the mean of their batch-normalisation statistics, which each device kept on its own."""
        self._share()
        variables = _statistics(self.averaged)
        if not variables:
            return
        sums = self.total(np.concatenate([variable.numpy() for variable in variables]))
        workers = self._strategy.num_replicas_in_sync // self._devices
        means = np.split(sums / workers, np.cumsum([v.shape[0] for v in variables]))
        for variable, mean in zip(variables, means, strict=False):
            variable.assign(mean)

    def _distributed_share(self) -> None:
        self._strategy.run(self._replica_share)

    def _replica_share(self) -> None:
        variables = _statistics(self.classifier)
        # A variable is on no device, which all_reduce refuses.
        sums = _all_reduce([tf.identity(variable.value) for variable in variables])
        for variable, total in zip(variables, sums, strict=True):
            variable.assign(total / self._strategy.num_replicas_in_sync)

    def state(self) -> dict[str, np.ndarray]:
        """All that training goes on from, by name."""
        return {
            f"{group}.{index:04}": variable.numpy()
            for group, variables in self._stateful().items()
            for index, variable in enumerate(variables)
        }

    def restore(self, state: dict[str, np.ndarray], rank: int = 0) -> None:
        """Go on from a state of the same recipe, which the first worker saved.

        The other workers have random seeds of their own, and take from it how many numbers were drawn.
        """
        for group, variables in self._stateful().items():
            for index, variable in enumerate(variables):
                saved = state[f"{group}.{index:04}"]
                if group == "random" and rank:
                    saved = np.array([variable.numpy()[0], saved[1]], saved.dtype)
                variable.assign(saved)

    def _stateful(self) -> dict[str, list[Any]]:
        return {
            "classifier": self.classifier.weights,
            "averaged": self.averaged.weights,
            "optimizer": self._optimizer.variables,
            "random": _random_states(self.classifier),
            "loss_scale": self._loss_scale.variables if self._loss_scale else [],
        }

    def _distributed_step(self, images: Any, labels: Any, drawn: Any) -> Any:
        if self._devices > 1:
            loss, finite = self._step_on_devices(images, labels, drawn)
        else:
            loss, finite = self._step_on_one_device(images, labels, drawn)
        if self._loss_scale:
            self._loss_scale.adjust(finite)
        self._move_average()
        return loss

    def _step_on_one_device(self, images: Any, labels: Any, drawn: Any) -> tuple[Any, Any]:
        """This worker's loss, and whether the gradients of all workers were finite."""
        loss, gradients = self._strategy.run(self._replica_gradients, args=(images, labels, drawn))
        finite: Any = True
        if self._loss_scale:
            finite = all_finite(gradients)
            gradients = self._loss_scale.unscaled(gradients, finite)
        # Out here the optimizer takes the gradients as the sums that they are; inside it would add them again.
        self._apply(gradients)
        return loss, finite

    def _replica_gradients(self, images: Any, labels: Any, drawn: Any) -> tuple[Any, list[Any]]:
        loss, gradients = self._gradients(images, labels, drawn)
        return loss, self._summed(gradients)

    def _step_on_devices(self, images: Any, labels: Any, drawn: Any) -> tuple[Any, Any]:
        """The same of a worker with several devices."""
        losses, finite = self._strategy.run(self._replica_step, args=(images, labels, drawn))
        local = self._strategy.experimental_local_results
        return tf.add_n(local(losses)), local(finite)[0]

    def _replica_step(self, images: Any, labels: Any, drawn: Any) -> tuple[Any, Any]:
        """A step of one of several devices: the optimizer adds the gradients of all by itself."""
        loss, gradients = self._gradients(images, labels, drawn)
        finite: Any = tf.constant(True)
        if self._loss_scale:
            (overflows,) = _all_reduce([tf.cast(~all_finite(gradients), tf.float32)])
            finite = tf.equal(overflows, 0.0)
            gradients = self._loss_scale.unscaled(gradients, finite)
        self._apply(gradients)
        return loss, finite

    def _apply(self, gradients: list[Any]) -> None:
        self._optimizer.apply_gradients(zip(gradients, self.classifier.trainable_variables, strict=True))

    def _gradients(self, images: Any, labels: Any, drawn: Any) -> tuple[Any, list[Any]]:
        """The loss, and the gradients of the loss times its scale."""
        x = self._augment(images, drawn)
        with tf.GradientTape() as tape:
            loss = self._loss(labels, self.classifier(x, training=True))
            scaled = loss * self._loss_scale.factor if self._loss_scale else loss
        return loss, tape.gradient(scaled, self.classifier.trainable_variables)

    def _summed(self, gradients: list[Any]) -> list[Any]:
        """The gradients added over all workers.

        Under a bfloat16 policy those of the kernels, nearly all there is, were computed in bfloat16, and
        travel in it: half the bytes, and only the sum is rounded.
        """
        if self._strategy.num_replicas_in_sync == 1:
            return gradients
        summed: list[Any] = [None] * len(gradients)
        small = [i for i, g in enumerate(gradients) if not (self._compressed and len(g.shape) == 4)]
        large = sorted(set(range(len(gradients))) - set(small))
        for indices, dtype in ((small, tf.float32), (large, tf.bfloat16)):
            sums = _all_reduce([tf.cast(gradients[i], dtype) for i in indices])
            for index, total in zip(indices, sums, strict=True):
                summed[index] = tf.cast(total, tf.float32)
        return summed

    def _loss(self, labels: Any, logits: Any) -> Any:
        smoothing = self._recipe.label_smoothing
        truth = ops.one_hot(labels, len(CLASSES)) * (1 - smoothing) + smoothing / len(CLASSES)
        losses = ops.categorical_crossentropy(truth, logits, from_logits=True)
        return ops.sum(losses * ops.take(self._class_weights, labels)) / self._recipe.batch_size

    def _move_average(self) -> None:
        """Averages of few steps would remember the first weights, so the decay grows to its value."""
        done = ops.cast(self._optimizer.iterations, "float32")
        decay = ops.minimum(self._recipe.averaging, done / (done + 9))
        for current, average in self._moving:
            average.assign_sub((1 - decay) * (average - current))

    def _averaged_logits(self, images: Any) -> Any:
        return self.averaged(smooth(images), training=False)

    def _distributed_total(self, values: Any) -> Any:
        # An argument is on no device, which all_reduce refuses.
        sums = self._strategy.run(lambda local: _all_reduce([tf.identity(local)])[0], args=(values,))
        # Each of a worker's devices added what its worker has.
        return self._strategy.experimental_local_results(sums)[0] / self._devices


def _all_reduce(tensors: list[Any]) -> list[Any]:
    if not tensors:
        return []
    return list(tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tensors))


def _classifier(recipe: Recipe, weights: Sequence[np.ndarray], first_stage: str) -> keras.Model:
    plain = build_classifier(recipe.network, recipe.image_size, recipe.dropout, recipe.precision)
    model = with_fused_normalization(plain)
    model.set_weights(weights)
    train_from(model, first_stage)
    return model


def _moving_pairs(classifier: keras.Model, averaged: keras.Model) -> list[tuple[Any, Any]]:
    """The variables that training changes, each with its average: of frozen layers, none."""
    return [
        (current, average)
        for layer, twin in zip(classifier.layers, averaged.layers, strict=True)
        if layer.trainable
        for current, average in zip(layer.weights, twin.weights, strict=True)
    ]


def _random_states(model: keras.Model) -> list[Any]:
    """Where the random numbers of the dropout stand: they are variables, but no weights."""
    weights = {id(variable) for variable in model.weights}
    return [variable for variable in model.variables if id(variable) not in weights]


def _statistics(model: keras.Model) -> list[Any]:
    """The batch-normalisation statistics that training moves, each of shape [C]."""
    return [
        variable
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
        for variable in (layer.moving_mean, layer.moving_variance)
    ]

"""The training step: a classifier and its optimizer under a distribution strategy, without Ray."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pneumonia_core.networks.classifier import build_classifier, random_states, train_from
from pneumonia_core.networks.prefilter import smooth
from pneumonia_core.training.augment import Augmenter, Variation
from pneumonia_core.training.averaged import AveragedNetwork
from pneumonia_core.training.batch_norm import statistics, with_fused_normalization
from pneumonia_core.training.checkpoint import numbered
from pneumonia_core.training.loss import ClassWeights, HierarchicalLoss
from pneumonia_core.training.optimizer import LossScale, all_finite, scheduled_optimizer
from pneumonia_core.training.recipe import Recipe


@dataclass(frozen=True)
class TrainingBatch:
    """One worker's input of one step: images uint8 [B, H, W], labels int32 [B], and their variation."""

    images: np.ndarray
    labels: np.ndarray
    variation: Variation

    def first(self, count: int) -> "TrainingBatch":
        """Its first images."""
        return self._select(slice(count))

    def part(self, number: int, parts: int) -> "TrainingBatch":
        """One of `parts` equal parts."""
        size = len(self.labels) // parts
        return self._select(slice(number * size, (number + 1) * size))

    def _select(self, some: slice) -> "TrainingBatch":
        return TrainingBatch(self.images[some], self.labels[some], self.variation.select(some))


class Learner:
    """A classifier with its optimizer under a distribution strategy, trained batch by batch.

    `averaged` follows its weights; it is evaluated and released. `step`, `share_statistics`, `shared_state`
    and `total` are collective operations: every worker must call them alike. A worker with several GPUs gives
    each a part of its batch. `loss_scale` is for float16, where None starts a new one.

    With `shared_moments` batch normalisation has those of all replicas (`SharedBatchNormalization`). With
    `compiled` XLA compiles the network forwards and backwards. What stays outside: resampling, of which XLA
    has no kernel; sums over replicas, and so a network with shared moments.
    """

    def __init__(
        self,
        recipe: Recipe,
        initial_weights: Sequence[np.ndarray],
        first_stage: str,
        class_weights: ClassWeights,
        steps_per_epoch: int,
        strategy: tf.distribute.Strategy | None = None,
        loss_scale: LossScale | None = None,
        shared_moments: bool = False,
        compiled: bool = False,
    ) -> None:
        self._recipe = recipe
        self._strategy = strategy or tf.distribute.get_strategy()
        devices = strategy.extended.worker_devices if strategy else ()
        self._devices = max(1, len(devices))
        self._loss_of = HierarchicalLoss.of(recipe, class_weights)
        # Between GPUs, TensorFlow's NCCL cannot add bfloat16.
        on_gpus = any("GPU" in device for device in devices)
        self._compressed = recipe.precision == "mixed_bfloat16" and not on_gpus
        self._augment = Augmenter(recipe.image_size, recipe.seed)
        average = _classifier(recipe, initial_weights, first_stage)
        with self._strategy.scope():
            self.classifier = _classifier(recipe, initial_weights, first_stage, shared_moments)
            self._optimizer = scheduled_optimizer(recipe, steps_per_epoch, self.classifier)
        self.averaged = AveragedNetwork(average, self.classifier, recipe)
        self._loss_scale = (loss_scale or LossScale()) if recipe.precision == "mixed_float16" else None
        self._gradients_of = self._loss_and_gradients
        if compiled and not shared_moments:
            self._gradients_of = tf.function(self._loss_and_gradients, autograph=False, jit_compile=True)
        self._step = tf.function(self._distributed_step, autograph=False)
        self._means = tf.function(self._distributed_means, autograph=False)
        self._total = tf.function(self._distributed_total, autograph=False)

    @property
    def learning_rate(self) -> float:
        return float(self._optimizer.learning_rate.numpy())

    def set_head(self, kernel: np.ndarray, bias: np.ndarray) -> None:
        """Start from this head: kernel [D, 3] and bias [3]."""
        for model in (self.classifier, self.averaged.model):
            model.get_layer("logits").set_weights([kernel, bias])

    def augmented(self, batch: TrainingBatch) -> np.ndarray:
        """The batch's images as a step sees them, uint8 [B, H, W]."""
        return np.asarray(self._inputs(batch.images, batch.variation)).round().astype(np.uint8)

    def step(self, batch: TrainingBatch) -> tf.Tensor:
        """Train on this worker's part of a global batch. Returns its part of the loss, a scalar tensor."""
        return self._step(*self._per_device(batch))

    def _per_device(self, batch: TrainingBatch) -> tuple[Any, ...]:
        """The arguments of the step, one part for each of this worker's devices."""
        if self._devices == 1:
            return batch.images, batch.labels, batch.variation
        parts = [batch.part(number, self._devices) for number in range(self._devices)]

        def part(context: tf.distribute.experimental.ValueContext) -> Any:  # noqa: ANN401 - a nest as TensorFlow maps it
            mine = parts[context.replica_id_in_sync_group % self._devices]
            return tf.nest.map_structure(tf.constant, (mine.images, mine.labels, mine.variation))

        return tuple(self._strategy.experimental_distribute_values_from_function(part))

    def total(self, values: np.ndarray | np.floating) -> np.ndarray:
        """The sum of `values` over all workers, on every worker."""
        return np.asarray(self._total(tf.constant(values)))

    def share_statistics(self) -> None:
        """Give all workers the mean of the batch-normalisation statistics, which differ between devices."""
        for variable, mean in self._mean_statistics():
            variable.assign(mean)

    def _mean_statistics(self) -> list[tuple[keras.Variable, np.ndarray]]:
        """The statistics, with their means over all workers."""
        local = statistics(self.averaged.model)
        if not local:
            return []
        sums = self.total(np.concatenate([variable.numpy() for variable in local]))
        workers = self._strategy.num_replicas_in_sync // self._devices
        means = np.split(sums / workers, np.cumsum([variable.shape[0] for variable in local])[:-1])
        spread = [np.asarray(mean) for mean in self._means()]
        return list(zip([*local, *statistics(self.classifier)], [*means, *spread], strict=True))

    def _distributed_means(self) -> list[tf.Tensor]:
        each = self._strategy.run(self._replica_means)
        return [self._strategy.experimental_local_results(mean)[0] for mean in each]

    def _replica_means(self) -> list[tf.Tensor]:
        # all_reduce refuses a variable, because it is on no device.
        sums = _all_reduce([tf.identity(variable.value) for variable in statistics(self.classifier)])
        return [total / self._strategy.num_replicas_in_sync for total in sums]

    def state(self) -> dict[str, np.ndarray]:
        """Everything that a resumed training needs, by name (checkpoint.numbered)."""
        return self._state({})

    def shared_state(self) -> dict[str, np.ndarray]:
        """`state` as it would be after `share_statistics`.

        The statistics stay as they are, so a training does not depend on how often it is saved.
        """
        return self._state({id(variable): mean for variable, mean in self._mean_statistics()})

    def _state(self, means: Mapping[int, np.ndarray]) -> dict[str, np.ndarray]:
        return {
            name: means[id(variable)] if id(variable) in means else variable.numpy()
            for group, variables in self._stateful().items()
            for name, variable in numbered(group, variables).items()
        }

    def restore(self, state: Mapping[str, np.ndarray], rank: int = 0) -> None:
        """Continue from a state that rank 0 saved under the same recipe.

        The other ranks keep their own random seeds; from the state they take how many numbers were drawn.
        """
        for group, variables in self._stateful().items():
            names = numbered(group, variables)
            for name, variable in names.items():
                saved = state[name]
                if group == "random" and rank:
                    saved = np.array([variable.numpy()[0], saved[1]], saved.dtype)
                variable.assign(saved)

    def _stateful(self) -> dict[str, list[tf.Variable]]:
        return {
            "classifier": self.classifier.weights,
            "averaged": self.averaged.model.weights,
            "optimizer": self._optimizer.variables,
            "random": random_states(self.classifier),
            "loss_scale": self._loss_scale.variables if self._loss_scale else [],
        }

    def _distributed_step(self, images: tf.Tensor, labels: tf.Tensor, variation: Variation) -> tf.Tensor:
        if self._devices > 1:
            loss, finite = self._step_on_devices(images, labels, variation)
        else:
            loss, finite = self._step_on_one_device(images, labels, variation)
        if self._loss_scale:
            self._loss_scale.adjust(finite)
        self.averaged.follow(self._optimizer.iterations)
        return loss

    def _step_on_one_device(
        self, images: tf.Tensor, labels: tf.Tensor, variation: Variation
    ) -> tuple[tf.Tensor, tf.Tensor | bool]:
        """This worker's loss, and whether the gradients of all workers are finite."""
        loss, gradients = self._strategy.run(self._replica_gradients, args=(images, labels, variation))
        finite: tf.Tensor | bool = True
        if self._loss_scale:
            finite = all_finite(gradients)
            gradients = self._loss_scale.unscaled(gradients, finite)
        # Outside the replica the optimizer takes the gradients as sums; inside it would add them again.
        self._apply(gradients)
        return loss, finite

    def _replica_gradients(
        self, images: tf.Tensor, labels: tf.Tensor, variation: Variation
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        loss, gradients = self._gradients(images, labels, variation)
        return loss, self._summed(gradients)

    def _step_on_devices(
        self, images: tf.Tensor, labels: tf.Tensor, variation: Variation
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """`_step_on_one_device` for a worker with several devices."""
        losses, finite = self._strategy.run(self._replica_step, args=(images, labels, variation))
        local = self._strategy.experimental_local_results
        return tf.add_n(local(losses)), local(finite)[0]

    def _replica_step(
        self, images: tf.Tensor, labels: tf.Tensor, variation: Variation
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The step of one of several devices; the optimizer itself adds the gradients of all."""
        loss, gradients = self._gradients(images, labels, variation)
        finite = tf.constant(True)
        if self._loss_scale:
            (overflows,) = _all_reduce([tf.cast(~all_finite(gradients), tf.float32)])
            finite = tf.equal(overflows, 0.0)
            gradients = self._loss_scale.unscaled(gradients, finite)
        self._apply(gradients)
        return loss, finite

    def _apply(self, gradients: list[tf.Tensor]) -> None:
        self._optimizer.apply_gradients(zip(gradients, self.classifier.trainable_variables, strict=True))

    def _gradients(
        self, images: tf.Tensor, labels: tf.Tensor, variation: Variation
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """The loss, and the gradients of the scaled loss."""
        return self._gradients_of(self._inputs(images, variation), labels)

    def _loss_and_gradients(self, x: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            loss = self._loss(labels, self.classifier(x, training=True))
            scaled = loss * self._loss_scale.factor if self._loss_scale else loss
        return loss, tape.gradient(scaled, self.classifier.trainable_variables)

    def _inputs(self, images: np.ndarray | tf.Tensor, variation: Variation) -> tf.Tensor:
        """Varied images float32 [B, H, W], filtered as scoring filters them."""
        return smooth(self._augment(images, variation), self._recipe.smoothing)

    def _summed(self, gradients: list[tf.Tensor]) -> list[tf.Tensor]:
        """The gradients, added over all workers.

        Under a bfloat16 policy the gradients of kernels, nearly all of the bytes, were computed in bfloat16.
        They also travel in bfloat16: this halves the bytes, and only the sum is rounded.
        """
        if self._strategy.num_replicas_in_sync == 1:
            return gradients
        summed: list[tf.Tensor | None] = [None] * len(gradients)
        small = [i for i, g in enumerate(gradients) if not (self._compressed and len(g.shape) == 4)]
        large = sorted(set(range(len(gradients))) - set(small))
        for indices, dtype in ((small, tf.float32), (large, tf.bfloat16)):
            sums = _all_reduce([tf.cast(gradients[i], dtype) for i in indices])
            for index, total in zip(indices, sums, strict=True):
                summed[index] = tf.cast(total, tf.float32)
        return summed

    def _loss(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """This replica's part of the mean loss of the global batch."""
        return self._loss_of.total(labels, logits) / self._recipe.batch_size

    def _distributed_total(self, values: tf.Tensor) -> tf.Tensor:
        # all_reduce refuses an argument, because it is on no device.
        sums = self._strategy.run(lambda local: _all_reduce([tf.identity(local)])[0], args=(values,))
        # Each device of a worker added the values of its worker.
        return self._strategy.experimental_local_results(sums)[0] / self._devices


def _all_reduce(tensors: list[tf.Tensor]) -> list[tf.Tensor]:
    """Each tensor added over all replicas."""
    if not tensors:
        return []
    return list(tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tensors))


def _classifier(
    recipe: Recipe, weights: Sequence[np.ndarray], first_stage: str, shared_moments: bool = False
) -> keras.Model:
    plain = build_classifier(recipe.network, recipe.image_size, recipe.dropout, recipe.precision)
    model = with_fused_normalization(plain, shared_moments)
    model.set_weights(weights)
    train_from(model, first_stage)
    return model

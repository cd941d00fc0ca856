"""The averaged network: an exponential moving average of a classifier's weights."""

from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from pneumonia_core.findings import CLASSES
from pneumonia_core.networks.prefilter import smooth
from pneumonia_core.training.recipe import Recipe


class AveragedNetwork:
    """A second classifier, `model`, that follows the weights of the one that trains.

    It predicts in batches of the recipe's size, on this worker alone, and sees images as scoring does.
    """

    def __init__(self, model: keras.Model, classifier: keras.Model, recipe: Recipe) -> None:
        self.model = model
        self._decay = recipe.averaging
        self.batch_size = recipe.batch_size
        self._smoothing = recipe.smoothing
        self._pairs = _trained_pairs(classifier, model)
        self._logits = self._compiled(model)
        self._features = self._compiled(keras.Model(model.input, model.get_layer("features").output))

    def follow(self, steps: tf.Tensor) -> None:
        """Move the average towards the classifier after its `steps`-th step.

        The decay grows to its value, because an average over few steps would keep the first weights.
        """
        done = ops.cast(steps, "float32")
        decay = ops.minimum(self._decay, done / (done + 9))
        for current, average in self._pairs:
            average.assign_sub((1 - decay) * (average - current))

    def get_weights(self) -> list[np.ndarray]:
        return list(self.model.get_weights())

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Logits float32 [N, 3] for images uint8 [N, H, W]."""
        return self._in_batches(self._logits, images, len(CLASSES))

    def features(self, images: np.ndarray) -> np.ndarray:
        """Input of the head, float32 [N, D], for images uint8 [N, H, W]."""
        return self._in_batches(self._features, images, self.model.get_layer("features").output.shape[-1])

    def _compiled(self, model: keras.Model) -> tf.types.experimental.PolymorphicFunction:
        def predict(images: tf.Tensor) -> tf.Tensor:
            return model(smooth(images, self._smoothing), training=False)

        return tf.function(predict, autograph=False)

    def _in_batches(
        self, predict: tf.types.experimental.PolymorphicFunction, images: np.ndarray, width: int
    ) -> np.ndarray:
        outputs = [np.zeros((0, width), np.float32)]
        for part, count in self._padded(images):
            outputs.append(predict(part).numpy()[:count])
        return np.concatenate(outputs)

    def _padded(self, images: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
        """Batches of one size, so that TensorFlow traces one graph, and the number of images in each."""
        for start in range(0, len(images), self.batch_size):
            part = images[start : start + self.batch_size]
            padded = np.zeros((self.batch_size, *images.shape[1:]), images.dtype)
            padded[: len(part)] = part
            yield padded, len(part)


def _trained_pairs(
    classifier: keras.Model, averaged: keras.Model
) -> list[tuple[keras.Variable, keras.Variable]]:
    """Each variable that training changes with its average; frozen layers have none."""
    return [
        (current, average)
        for layer, twin in zip(classifier.layers, averaged.layers, strict=True)
        if layer.trainable
        for current, average in zip(layer.weights, twin.weights, strict=True)
    ]

"""Pretrained weights: from ImageNet, a Keras file, or a file of torchvision's weights."""

import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from keras import layers, ops

from pneumonia_core.errors import InvalidInput, Remedy
from pneumonia_core.networks.catalog import STAGES, check_source
from pneumonia_core.networks.classifier import KERAS_APPLICATIONS, copy_weights, stages_of_layers
from pneumonia_core.networks.resnet import norm_name
from pneumonia_core.networks.scoring_model import members_of


@dataclass(frozen=True)
class LoadedWeights:
    """The layers that got weights from the source, and the stages of which all layers did."""

    layers: tuple[str, ...]
    stages: tuple[str, ...]


def load_weights(classifier: keras.Model, source: str, images: np.ndarray | None = None) -> LoadedWeights:
    """Fill the classifier from `source`: `none`, `imagenet` or a file; layers that it lacks stay random.

    Files are `.keras` or `.weights.h5` of a classifier, or `.npz` under torchvision's names with batch
    normalisation folded into kernels and biases. From `images` uint8 [N, H, W], some dozen training images,
    the batch normalisation of an `.npz` recovers its statistics; without them, training a layer further
    starts from wrong ones. Raises InvalidInput when the source is missing, unreadable, or fits no layer.
    """
    if source == "none":
        return LoadedWeights((), ())
    check_source(classifier.name, source)
    if source == "imagenet":
        loaded = _load_imagenet(classifier)
    elif source.endswith(".npz"):
        loaded = _load_folded(classifier, Path(source), images)
    else:
        loaded = _load_keras(classifier, Path(source))
    if not loaded:
        raise InvalidInput(f"{source}: none of its weights fits {classifier.name}.", Remedy.WEIGHTS)
    return LoadedWeights(tuple(loaded), tuple(_complete_stages(classifier, set(loaded))))


def _load_imagenet(classifier: keras.Model) -> list[str]:
    try:
        published = KERAS_APPLICATIONS[classifier.name](weights="imagenet", include_top=False)
    except Exception as error:  # get_file raises a bare Exception when the download fails
        raise InvalidInput(
            f"the ImageNet weights of {classifier.name} could not be downloaded: this machine does not reach "
            "Keras's server. Run it on a machine that does, or copy ~/.keras/models from one.",
            Remedy.LOCAL_WEIGHTS,
        ) from error
    return copy_weights(published, classifier)


def _load_keras(classifier: keras.Model, file: Path) -> list[str]:
    try:
        if file.suffix == ".keras":
            return _copy_fitting(keras.saving.load_model(file, compile=False, safe_mode=True), classifier)
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # Keras only warns about layers that the file lacks
            classifier.load_weights(file)
    except (ValueError, TypeError, KeyError, OSError, UserWarning, zipfile.BadZipFile) as error:
        raise InvalidInput(
            f"{file}: damaged, or not the weights of a {classifier.name} classifier of this program.",
            Remedy.WEIGHTS,
        ) from error
    return [layer.name for layer in classifier.layers if layer.weights]


def _copy_fitting(source: keras.Model, target: keras.Model) -> list[str]:
    if source.name != target.name:
        raise ValueError(f"it holds a {source.name}")
    # The first of the members of a bundle of several.
    return copy_weights(members_of(source)[0], target)


def _load_folded(classifier: keras.Model, file: Path, images: np.ndarray | None) -> list[str]:
    try:
        with np.load(file, allow_pickle=False) as folded:
            weights = {name: folded[name] for name in folded.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InvalidInput(f"{file}: not a .npz file of arrays, or damaged.", Remedy.WEIGHTS) from error
    found = list(_convolutions_in(classifier, weights))
    for convolution, norm in found:
        convolution.set_weights([weights[f"{convolution.name}.weight"]])
        count = convolution.filters
        _set_norm(norm, np.zeros(count), np.ones(count), weights[f"{convolution.name}.bias"])
    if images is not None and found:
        _restore_statistics(classifier, found, weights, images)
    return [layer.name for pair in found for layer in pair]


def _convolutions_in(
    classifier: keras.Model, weights: dict[str, np.ndarray]
) -> Iterator[tuple[layers.Conv2D, layers.BatchNormalization]]:
    """The convolutions whose kernel and bias are in the file, each with the normalisation behind it."""
    by_name = {layer.name: layer for layer in classifier.layers}
    for name, layer in by_name.items():
        kernel, bias = weights.get(f"{name}.weight"), weights.get(f"{name}.bias")
        if not isinstance(layer, layers.Conv2D) or kernel is None or bias is None:
            continue
        if kernel.shape == layer.kernel.shape and bias.shape == (layer.filters,):
            yield layer, by_name[norm_name(name)]


def _restore_statistics(
    classifier: keras.Model,
    found: list[tuple[layers.Conv2D, layers.BatchNormalization]],
    weights: dict[str, np.ndarray],
    images: np.ndarray,
) -> None:
    """Set each normalisation to the mean and variance that its convolution has on `images`.

    Scale and offset undo them. The network then computes the folded network's function in inference and, as
    far as the images are typical, in training. It computes this function already, so one forward pass gives
    every convolution its final input.
    """
    moments = {}
    for convolution, _ in found:
        output = ops.cast(convolution.output, "float32")
        moments[convolution.name] = ops.stack(
            [ops.mean(output, axis=(1, 2)), ops.mean(ops.square(output), axis=(1, 2))], axis=1
        )
    probe = keras.Model(classifier.input, moments)
    batches = [images[start : start + 16] for start in range(0, len(images), 16)]
    measured = [probe.predict_on_batch(batch) for batch in batches]
    for convolution, norm in found:
        per_image = np.concatenate([batch[convolution.name] for batch in measured]).astype(np.float64)
        mean, square = per_image.mean(axis=0)
        variance = np.maximum(square - mean**2, 0.0)
        _set_norm(norm, mean, variance, weights[f"{convolution.name}.bias"])


def _set_norm(
    norm: layers.BatchNormalization, mean: np.ndarray, variance: np.ndarray, bias: np.ndarray
) -> None:
    norm.set_weights([np.sqrt(variance + norm.epsilon), bias + mean, mean, variance])


def _complete_stages(classifier: keras.Model, loaded: set[str]) -> Iterator[str]:
    """The stages of which every layer with weights is among the `loaded` ones."""
    for stage in STAGES:
        weighted = [
            layer.name for layer, its in stages_of_layers(classifier) if its == stage and layer.weights
        ]
        if all(name in loaded for name in weighted):
            yield stage

"""The classifiers: ResNets from a grey image to three logits."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import keras
from keras import layers

from pneumonia_core.findings import CLASSES
from pneumonia_core.networks.catalog import STAGES, TORCHVISION_LAYOUT, check_network
from pneumonia_core.networks.resnet import resnet


@dataclass(frozen=True)
class Architecture:
    """A backbone with the pixel values that its published weights expect.

    They are `grey * scale + offset` for each of three channels. `stage_outputs` names the layers that end the
    stages conv1, layer1 … layer4.
    """

    backbone: Callable[[keras.KerasTensor, str], keras.KerasTensor]
    scale: tuple[float, ...]
    offset: tuple[float, ...]
    stage_outputs: tuple[str, ...]


def _keras_application(x: keras.KerasTensor, network: str) -> keras.KerasTensor:
    return KERAS_APPLICATIONS[network](include_top=False, weights=None, input_tensor=x).output


def _torchvision() -> Architecture:
    """Pixels standardised with the mean and standard deviation of ImageNet."""
    means, deviations = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    scale = tuple(1 / (255 * deviation) for deviation in deviations)
    offset = tuple(-mean / deviation for mean, deviation in zip(means, deviations, strict=True))
    return Architecture(resnet, scale, offset, ("maxpool", "layer1", "layer2", "layer3", "layer4"))


def _caffe(*blocks: int) -> Architecture:
    """keras.applications.resnet: BGR minus the ImageNet mean; grey is the same in both orders."""
    ends = tuple(f"conv{stage}_block{last}_out" for stage, last in enumerate(blocks, start=2))
    return Architecture(_keras_application, (1.0,) * 3, (-103.939, -116.779, -123.68), ("pool1_pool", *ends))


def _minus_one_to_one(*blocks: int) -> Architecture:
    """keras.applications.resnet_v2."""
    ends = tuple(f"conv{stage}_block{last}_out" for stage, last in enumerate(blocks[:3], start=2))
    return Architecture(_keras_application, (1 / 127.5,) * 3, (-1.0,) * 3, ("pool1_pool", *ends, "post_relu"))


KERAS_APPLICATIONS: Final[dict[str, Callable[..., keras.Model]]] = {
    "resnet50": keras.applications.ResNet50,
    "resnet101": keras.applications.ResNet101,
    "resnet152": keras.applications.ResNet152,
    "resnet50v2": keras.applications.ResNet50V2,
    "resnet101v2": keras.applications.ResNet101V2,
    "resnet152v2": keras.applications.ResNet152V2,
}
ARCHITECTURES: Final = {
    "resnet18": _torchvision(),
    "resnet34": _torchvision(),
    "resnet50": _caffe(3, 4, 6, 3),
    "resnet101": _caffe(3, 4, 23, 3),
    "resnet152": _caffe(3, 8, 36, 3),
    "resnet50v2": _minus_one_to_one(3, 4, 6, 3),
    "resnet101v2": _minus_one_to_one(3, 4, 23, 3),
    "resnet152v2": _minus_one_to_one(3, 8, 36, 3),
}


def build_classifier(
    network: str, image_size: int, dropout: float = 0.0, precision: str = "float32"
) -> keras.Model:
    """The model to train: grey images [B, H, W] or [B, H, W, 1], 0 to 255, to logits float32 [B, 3].

    Its weights are random; its name is `network`. `precision` is a Keras dtype policy. Raises InvalidInput
    where the network does not exist or cannot take this image size.
    """
    check_network(network, image_size)
    with dtype_policy(precision):
        images = keras.Input((image_size, image_size), dtype="float32", name="image")
        logits = logits_of(images, network, dropout)
        classifier = keras.Model(images, logits, name=network)
    for layer in classifier.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = (
                0.9  # torch's 0.1: the statistics must settle within the few hundred steps of a fine-tuning
            )
    return classifier


def copy_weights(source: keras.Model, target: keras.Model) -> list[str]:
    """Copies weights between layers of the same name. Returns the names of these layers."""
    sources = {layer.name: layer for layer in source.layers if layer.weights}
    copied = []
    for layer in target.layers:
        if layer.weights and layer.name in sources:
            layer.set_weights(sources[layer.name].get_weights())
            copied.append(layer.name)
    return copied


def stage_output(model: keras.Model, stage: str) -> keras.KerasTensor:
    """The symbolic output of a stage of a classifier or scoring model: one of STAGES except `head`."""
    names = dict(zip(STAGES, ARCHITECTURES[model.name].stage_outputs, strict=False))
    return model.get_layer(names[stage]).output


def train_from(classifier: keras.Model, stage: str) -> list[str]:
    """Freezes the stages before `stage` and unfreezes the others. Returns the stages that train.

    Batch normalisation in a frozen stage uses its stored statistics in training too: Keras defines
    `trainable = False` this way.
    """
    training = STAGES[STAGES.index(stage) :]
    for layer, its_stage in stages_of_layers(classifier):
        layer.trainable = its_stage in training
    return list(training)


def stages_of_layers(model: keras.Model) -> Iterator[tuple[keras.Layer, str]]:
    """Each layer of the model with its stage."""
    for layer in model.layers:
        yield layer, stage_of(model.name, layer.name)


def stage_of(network: str, layer_name: str) -> str:
    """The stage of a layer, one of STAGES, from its name in torchvision or keras.applications."""
    if network in TORCHVISION_LAYOUT:
        found = re.match(r"layer([1-4])", layer_name)
        return f"layer{found[1]}" if found else _outer_stage(layer_name)
    if found := re.match(r"conv([2-5])_", layer_name):
        return f"layer{int(found[1]) - 1}"
    return "layer4" if layer_name.startswith("post_") else _outer_stage(layer_name)


def _outer_stage(layer_name: str) -> str:
    """The stage of a layer before layer1 or behind layer4."""
    return "head" if layer_name in ("features", "dropout", "logits") else "conv1"


@contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """Layers created in the block have this Keras dtype policy."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def logits_of(
    images: keras.KerasTensor, network: str, dropout: float, black: float = 0.0
) -> keras.KerasTensor:
    """The symbolic logits float32 [B, 3] of grey images whose levels run from `black` to `black` + 255."""
    architecture = ARCHITECTURES[network]
    offset = tuple(o - black * s for s, o in zip(architecture.scale, architecture.offset, strict=True))
    grey = layers.Reshape((*images.shape[1:], 1), dtype="float32", name="grey")(images)
    channels = layers.Concatenate(dtype="float32", name="channels")([grey, grey, grey])
    # In float32 under a mixed policy too: the 8 bits of bfloat16 cannot hold a pixel after augmentation.
    x = layers.Rescaling(architecture.scale, offset, dtype="float32", name="normalised")(channels)
    x = architecture.backbone(x, network)
    x = layers.GlobalAveragePooling2D(dtype="float32", name="features")(x)
    x = layers.Dropout(dropout, dtype="float32", name="dropout")(x)
    return layers.Dense(len(CLASSES), dtype="float32", name="logits")(x)


def random_states(model: keras.Model) -> list[keras.Variable]:
    """The states of the dropout's random generators: variables that are not weights."""
    weights = {id(variable) for variable in model.weights}
    return [variable for variable in model.variables if id(variable) not in weights]

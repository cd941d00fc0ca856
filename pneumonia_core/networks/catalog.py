"""Names of the supported networks and weight sources, without Keras: a command checks them at once."""

from pathlib import Path
from typing import Final

from pneumonia_core.errors import InvalidInput, Remedy

# The first group is laid out as in torchvision, the second as in keras.applications, whose ImageNet weights
# Keras can download.
TORCHVISION_LAYOUT: Final = ("resnet18", "resnet34")
KERAS_LAYOUT: Final = ("resnet50", "resnet101", "resnet152", "resnet50v2", "resnet101v2", "resnet152v2")
NETWORKS: Final = TORCHVISION_LAYOUT + KERAS_LAYOUT
STAGES: Final = ("conv1", "layer1", "layer2", "layer3", "layer4", "head")
SMALLEST_IMAGE: Final = 32
WEIGHT_SUFFIXES: Final = (".npz", ".keras", ".weights.h5")


def check_network(network: str, image_size: int) -> None:
    """Raises InvalidInput where the network does not exist or cannot take images of this side in pixels."""
    if network not in NETWORKS:
        raise InvalidInput(f"the network {network!r} does not exist. Choose one of {', '.join(NETWORKS)}.")
    if image_size < SMALLEST_IMAGE:
        raise InvalidInput(
            f"an image size of {image_size} is too small for a ResNet. Give {SMALLEST_IMAGE} or more."
        )


def check_source(network: str, source: str) -> None:
    """Raises InvalidInput when `network` cannot start from the weights `source`; loads nothing."""
    if source == "none":
        return
    if source == "imagenet":
        if network not in KERAS_LAYOUT:
            raise InvalidInput(
                f"Keras has no ImageNet weights of {network} to download. Choose resnet50 or larger, or "
                "convert torchvision's weights to a .npz file with batch normalisation folded.",
                Remedy.LOCAL_WEIGHTS,
            )
        return
    if not Path(source).is_file():
        raise InvalidInput(f"the weights {source} are not a file.", Remedy.WEIGHTS)
    if not source.endswith(WEIGHT_SUFFIXES):
        raise InvalidInput(f"{source}: weights of this format cannot be read.", Remedy.WEIGHTS)

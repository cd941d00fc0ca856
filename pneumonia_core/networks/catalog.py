"""The networks there are and what they can start from, by name: no Keras, so that a command can ask early."""

from pathlib import Path
from typing import Final

from pneumonia_core.errors import InvalidInput

# torchvision has these, keras.applications the others, whose ImageNet weights Keras can download.
TORCHVISION_LAYOUT: Final = ("resnet18", "resnet34")
KERAS_LAYOUT: Final = ("resnet50", "resnet101", "resnet152", "resnet50v2", "resnet101v2", "resnet152v2")
NETWORKS: Final = TORCHVISION_LAYOUT + KERAS_LAYOUT
STAGES: Final = ("conv1", "layer1", "layer2", "layer3", "layer4", "head")
SMALLEST_IMAGE: Final = 32
WEIGHTS_HELP: Final = "Give none, imagenet, or a .npz, .keras or .weights.h5 file."


def check_network(network: str, image_size: int) -> None:
    """Raises InvalidInput for a network that does not exist or cannot take images of that side."""
    if network not in NETWORKS:
        raise InvalidInput(f"no network {network!r}. There are: {', '.join(NETWORKS)}.")
    if image_size < SMALLEST_IMAGE:
        raise InvalidInput(
            f"image size {image_size} is too small for a ResNet: give {SMALLEST_IMAGE} or more."
        )


def check_source(network: str, source: str) -> None:
    """Raises InvalidInput when `source` can be no first weights of `network`; loads nothing."""
    if source == "none":
        return
    if source == "imagenet":
        if network not in KERAS_LAYOUT:
            raise InvalidInput(
                f"there is no download of ImageNet weights for {network}. Give --weights FILE, a .npz with "
                "torchvision's weights, batch normalisation folded; or --weights none; or choose resnet50 "
                "or larger."
            )
        return
    if not Path(source).is_file():
        raise InvalidInput(f"the weights {source} are no file. {WEIGHTS_HELP}")
    if not source.endswith((".npz", ".keras", ".weights.h5")):
        raise InvalidInput(f"{source}: weights of a kind that cannot be read. {WEIGHTS_HELP}")

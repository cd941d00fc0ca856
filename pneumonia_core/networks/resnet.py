"""ResNet-18 and -34 laid out as in torchvision, so that torchvision's weights fit them by name."""

from typing import Final

import keras
from keras import layers

BLOCKS: Final = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}
STEM_WIDTH: Final = 64
WIDTHS: Final = (64, 128, 256, 512)


def resnet(x: keras.KerasTensor, network: str) -> keras.KerasTensor:
    """The last feature map [B, H/32, W/32, 512] of `network` for normalised RGB images `x` [B, H, W, 3].

    Layers have torchvision's parameter names (`layer2.0.conv1`, `layer2.0.bn1`, `layer2.0.downsample.0`). The
    output of each stage is the layer `layer1` … `layer4`. He et al. 2016, basic blocks. Padding is symmetric
    as in torchvision; TensorFlow's "same" is not where the stride is 2.
    """
    x = _convolution(x, STEM_WIDTH, 7, 2, "conv1")
    x = layers.ReLU(name="relu")(x)
    x = layers.ZeroPadding2D(1, name="maxpool.pad")(x)
    x = layers.MaxPooling2D(3, 2, name="maxpool")(x)
    for stage, (blocks, width) in enumerate(zip(BLOCKS[network], WIDTHS, strict=True), start=1):
        for block in range(blocks):
            name = f"layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            is_last = block == blocks - 1
            x = _basic_block(x, width, stride, name, f"layer{stage}" if is_last else name)
    return x


def norm_name(convolution: str) -> str:
    """The name of the batch normalisation behind a convolution.

    torchvision: `layer1.0.bn2` follows `layer1.0.conv2`, `….downsample.1` follows `….downsample.0`.
    """
    if convolution.endswith("downsample.0"):
        return convolution[:-1] + "1"
    return convolution.replace("conv", "bn")


def _basic_block(
    x: keras.KerasTensor, width: int, stride: int, name: str, output_name: str
) -> keras.KerasTensor:
    shortcut = x
    if stride != 1 or x.shape[-1] != width:
        shortcut = _convolution(x, width, 1, stride, f"{name}.downsample.0")
    x = _convolution(x, width, 3, stride, f"{name}.conv1")
    x = layers.ReLU(name=f"{name}.relu")(x)
    x = _convolution(x, width, 3, 1, f"{name}.conv2")
    x = layers.Add(name=f"{name}.add")([x, shortcut])
    return layers.ReLU(name=output_name)(x)


def _convolution(x: keras.KerasTensor, width: int, kernel: int, stride: int, name: str) -> keras.KerasTensor:
    """A convolution without bias and the batch normalisation behind it."""
    if kernel > 1 and stride > 1:
        x = layers.ZeroPadding2D(kernel // 2, name=f"{name}.pad")(x)
    x = layers.Conv2D(
        width,
        kernel,
        stride,
        padding="valid" if stride > 1 else "same",
        use_bias=False,
        kernel_initializer=keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal"),
        name=name,
    )(x)
    return layers.BatchNormalization(epsilon=1e-5, momentum=0.9, name=norm_name(name))(x)

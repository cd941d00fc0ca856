"""The scoring model with its trunk in float16, as GPUs compute it."""

from collections.abc import Sequence
from pathlib import Path

import keras

from pneumonia_core.bundles.engines import FLOAT16_FILES, PICTURE_CHANNELS


def export_float16(model: keras.Model, bundle: Path) -> None:
    """Write the Keras scoring model with its trunk in float16 into the folder of a bundle."""
    float16_trunk(model).export(str(bundle / FLOAT16_FILES), format="tf_saved_model", verbose=False)


def float16_trunk(model: keras.Model) -> keras.Model:
    """The float32 scoring model with all layers from feature maps to feature maps in float16.

    What is before and behind them stays in float32: smoothing, normalisation, first convolution, pooling,
    head, calibration and domain guard. Convolutions also hold their weights in float16; batch normalisation
    computes in float32 and rounds its result.
    """
    rebuilt = keras.models.clone_model(model, clone_function=_rebuilt, recursive=True)
    for source, target in zip(model.weights, rebuilt.weights, strict=True):
        target.assign(source)
    return rebuilt


def _rebuilt(layer: keras.Layer) -> keras.Layer:
    config = layer.get_config()
    if _is_in_trunk(layer):
        config["dtype"] = "float16" if isinstance(layer, keras.layers.Conv2D) else "mixed_float16"
    return type(layer).from_config(config)


def _is_in_trunk(layer: keras.Layer) -> bool:
    return all(map(_is_feature_map, [*_tensors(layer.input), *_tensors(layer.output)]))


def _tensors(value: keras.KerasTensor | Sequence[keras.KerasTensor]) -> Sequence[keras.KerasTensor]:
    return [value] if isinstance(value, keras.KerasTensor) else value


def _is_feature_map(tensor: keras.KerasTensor) -> bool:
    return len(tensor.shape) == 4 and tensor.shape[-1] > PICTURE_CHANNELS

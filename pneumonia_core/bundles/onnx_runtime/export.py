"""Writing a scoring model as ONNX; only this module uses tf2onnx."""

import warnings
from pathlib import Path

import keras
import onnx

from pneumonia_core.bundles.onnx_runtime.engine import BATCH, IMAGE, model_file
from pneumonia_core.bundles.onnx_runtime.float16 import to_float16


def export_onnx(model: keras.Model, bundle: Path) -> None:
    """Write the Keras scoring model as ONNX into the folder of a bundle, in float32 and with float16.

    The graphs take `image` uint8 [batch, H, W] and give the outputs of the model.
    """
    path, float16 = (bundle / model_file(precision) for precision in ("float32", "float16"))
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = model.input_shape[1:]
    with warnings.catch_warnings():
        # Keras asks NumPy for an attribute that it patches for tf2onnx.
        warnings.simplefilter("ignore", FutureWarning)
        model.export(
            str(path),
            format="onnx",
            verbose=False,
            input_signature=[keras.InputSpec("uint8", (None, height, width), name=IMAGE)],
        )
    network = onnx.load(path)
    for value in (*network.graph.input, *network.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = BATCH
    # Shapes in between name the batch otherwise, and ONNX Runtime finds them itself.
    del network.graph.value_info[:]
    onnx.save(network, path)
    onnx.save(to_float16(network), float16)

"""Opening the exported network in a bundle's folder with the engine of a given name."""

from pathlib import Path

from pneumonia_core.bundles.engines import BATCH_SIZE, ONNX_ENGINE, Engine, files_prefix


def open_exported(
    folder: Path,
    name: str,
    precision: str,
    image_size: int,
    threads: int,
    gpu: bool = False,
    batch_size: int = BATCH_SIZE,
) -> Engine:
    """The engine over the exported files in a bundle's folder, in batches of this size.

    Without `gpu` it computes on the CPU. The TensorFlow engine also sets TensorFlow's graph precision,
    threads and devices for the whole process.
    """
    if name == "tensorflow":
        # Each engine imports its framework: scoring with OpenVINO must not load TensorFlow.
        from pneumonia_core.bundles.tensorflow_runtime.engine import TensorflowEngine, set_devices

        set_devices(threads, gpu)
        use_precision(name, precision)
        saved_model = folder / files_prefix(name, precision)
        return TensorflowEngine(saved_model, precision, image_size, batch_size, compiled=gpu)
    if name == ONNX_ENGINE:
        # Not every machine has ONNX Runtime.
        from pneumonia_core.bundles.onnx_runtime.engine import OnnxruntimeEngine

        return OnnxruntimeEngine(folder, precision, threads, gpu, batch_size)
    # And scoring with TensorFlow must not load OpenVINO.
    from pneumonia_core.bundles.openvino_runtime.engine import OpenvinoEngine

    model = folder / f"{files_prefix(name, precision)}xml"
    return OpenvinoEngine(model, name, precision, image_size, threads, batch_size)


def use_precision(name: str, precision: str) -> None:
    """Let the engine of this name, where it is open in this process, compute in `precision` from now on.

    Only TensorFlow's follows: it computes in the graph precision of its process.
    """
    if name == "tensorflow":
        # See above.
        from pneumonia_core.bundles.tensorflow_runtime.engine import set_graph_precision

        set_graph_precision(precision)

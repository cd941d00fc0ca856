"""One more engine for a bundle: a new bundle that holds it too."""

import importlib.metadata
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np

from pneumonia_core.bundles.bundle import Bundle
from pneumonia_core.bundles.engines import INT8_ENGINE, ONNX_ENGINE, Reports
from pneumonia_core.bundles.openvino_runtime.quantization import quantize_engine
from pneumonia_core.bundles.parity import ParityImages, measure_engine, predict
from pneumonia_core.bundles.tensorflow_runtime.engine import set_devices
from pneumonia_core.bundles.tensorflow_runtime.float16 import export_float16
from pneumonia_core.bundles.writer import publish, with_engines, writing_folder

# What measures the parity of the engine that is being added; and what bundle.json says of how it was made,
# with that parity.
Measure = Callable[[], Reports]
Made = tuple[Mapping[str, object], Reports]


def add_int8_engine(
    models_dir: Path, bundle: Bundle, model: keras.Model, calibration: np.ndarray, held_back: ParityImages
) -> Bundle:
    """Write a bundle under `models_dir` with all of `bundle` and the engine INT8_ENGINE, and open it.

    The network is quantised with the `calibration` images, uint8 [N, H, W]. The rest is as `_add` says.
    """

    def quantize(folder: Path, measure: Measure) -> Made:
        return quantize_engine(folder, calibration, measure)

    return _add(models_dir, bundle, INT8_ENGINE, model, held_back, quantize)


def add_onnx_engine(models_dir: Path, bundle: Bundle, model: keras.Model, held_back: ParityImages) -> Bundle:
    """Write a bundle under `models_dir` with all of `bundle` and the engine ONNX_ENGINE, and open it."""
    # Only this engine needs the extra.
    from pneumonia_core.bundles.onnx_runtime.export import export_onnx

    def export(folder: Path, measure: Measure) -> Made:
        export_onnx(model, folder)
        return {"onnx": {name: importlib.metadata.version(name) for name in ("onnx", "tf2onnx")}}, measure()

    return _add(models_dir, bundle, ONNX_ENGINE, model, held_back, export)


def add_float16(models_dir: Path, bundle: Bundle, model: keras.Model, held_back: ParityImages) -> Bundle:
    """Write a bundle under `models_dir` with all of `bundle` and FLOAT16_GRAPH, and open it."""

    def export(folder: Path, measure: Measure) -> Made:
        export_float16(model, folder)
        return {}, measure()

    return _add(models_dir, bundle, "tensorflow", model, held_back, export, ("float16",))


def _add(
    models_dir: Path,
    bundle: Bundle,
    engine: str,
    model: keras.Model,
    held_back: ParityImages,
    write: Callable[[Path, Measure], Made],
    precisions: Sequence[str] = (),
) -> Bundle:
    """Write a bundle with all of `bundle` and one more engine, or an engine in further `precisions`.

    `write` puts its files in a folder. `model` is the bundle's float32 Keras scoring model. Parity with it is
    measured on `held_back`, and the bundle is written whether or not the engine passes. The `model_id` stays:
    weights, thresholds and scores of the others are the same.
    """
    # What an engine is compared with is computed on the CPU.
    set_devices(len(os.sched_getaffinity(0)), gpu=False)
    spec = bundle.spec
    with writing_folder(models_dir) as folder:
        for name in bundle.document["files"]:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle.path / name, folder / name)
        reference = predict(model, held_back.images)

        def measure() -> Reports:
            return measure_engine(
                folder, engine, spec.thresholds, spec.domain, held_back, reference, precisions
            )

        made, reports = write(folder, measure)
        reports = {**bundle.reports.get(engine, {}), **reports}
        return publish(folder, models_dir, with_engines({**bundle.document, **made}, {engine: reports}))

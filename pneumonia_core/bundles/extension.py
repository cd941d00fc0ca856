"""One more engine for a bundle: a new bundle that holds it too."""

import importlib.metadata
import os
import shutil
from pathlib import Path

import keras
import numpy as np

from pneumonia_core.bundles.bundle import Bundle
from pneumonia_core.bundles.engines import ENGINE_FILES, INT8_ENGINE
from pneumonia_core.bundles.parity import ParityImages, measure_engine, predict
from pneumonia_core.bundles.quantization import quantize
from pneumonia_core.bundles.tensorflow_engine import set_devices
from pneumonia_core.bundles.writer import publish, with_engines, writing_folder


def add_int8_engine(
    models_dir: Path, bundle: Bundle, model: keras.Model, calibration: np.ndarray, held_back: ParityImages
) -> Bundle:
    """Write a bundle under `models_dir` with all of `bundle` and the engine INT8_ENGINE, and open it.

    `model` is the bundle's float32 Keras scoring model. The network is quantised with the `calibration`
    images, uint8 [N, H, W]; parity with `model` is measured on `held_back`. The bundle is written whether or
    not the engine passes it. The `model_id` stays: weights, thresholds and scores of the others are the same.
    """
    # What an engine is compared with is computed on the CPU.
    set_devices(len(os.sched_getaffinity(0)), gpu=False)
    spec = bundle.spec
    with writing_folder(models_dir) as folder:
        for name in bundle.document["files"]:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle.path / name, folder / name)
        source, quantized = (folder / f"{ENGINE_FILES[name]}xml" for name in ("openvino", INT8_ENGINE))
        quantize(source, calibration, quantized)
        reference = predict(model, held_back.images)
        reports = measure_engine(folder, INT8_ENGINE, spec.thresholds, spec.domain, held_back, reference)
        quantization = {"images": len(calibration), "nncf": importlib.metadata.version("nncf")}
        document = {**bundle.document, "quantization": quantization}
        return publish(folder, models_dir, with_engines(document, {INT8_ENGINE: reports}))

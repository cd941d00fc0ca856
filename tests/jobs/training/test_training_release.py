"""Where a bundle is calibrated and written after a training: without GPUs, and where there is room for it."""

import subprocess
import sys

import keras
import numpy as np
import pyarrow as pa
import pytest
from support.paths import REPOSITORY

from jobs.training.images import stored_images
from jobs.training.placement import TrainingPlacement
from jobs.training.release import ReleaseInput, release_on_worker
from pneumonia_core.networks.classifier import build_classifier
from pneumonia_core.phantoms.radiograph import phantom
from pneumonia_core.training.held_out.validation_set import ValidationSet
from pneumonia_core.training.recipe import Recipe
from pneumonia_core.training.release import Provenance

# A GPU that TensorFlow believes in until it computes; weights that fit no network end the release early.
_WITH_A_GPU = """
import tensorflow as tf
from tensorflow.python.eager import context

known = context.context()
known._initialize_physical_devices()
gpu = context.PhysicalDevice("/physical_device:GPU:0", "GPU")
known._physical_devices.append(gpu)
known._visible_device_list.append(gpu)
assert tf.config.get_visible_devices("GPU") == [gpu]

from pathlib import Path
from jobs.training.release import ReleaseInput, write_release
from pneumonia_core.training.recipe import Recipe

recipe = Recipe("resnet18", "none", 32)
try:
    write_release(Path("nowhere"), ReleaseInput(recipe, [[]], None, None, None, 0.9, False, False))
except ValueError as error:
    assert context.context()._context_handle is not None
    assert tf.config.get_visible_devices("GPU") == [], "the release computes on the GPU"
    print("hidden")
"""


def test_the_release_hides_gpus_before_tensorflow_starts():
    command = [sys.executable, "-c", _WITH_A_GPU]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=500)
    assert done.stdout.strip() == "hidden", done.stderr


@pytest.mark.slow
def test_a_bundle_that_is_made_in_a_task_comes_back_to_the_driver(ray_here, tmp_path):
    """Some 30 s, most of them of the exports."""
    keras.utils.set_random_seed(0)
    labels = np.arange(64) % 3
    images = np.stack([phantom(int(label), number, 0, (32, 32)) for number, label in enumerate(labels)])
    # As a training has them: blocks in the object store.
    blocks = ray_here.data.from_arrow(
        [pa.table({"row": range(start, start + 32)}) for start in (0, 32)]
    ).map_batches(lambda rows: {"row": rows["row"], "image": images[rows["row"]]})
    parts = stored_images(blocks.materialize(), np.arange(64), 32)
    validation = ValidationSet(parts, labels, np.arange(64))
    weights = build_classifier("resnet18", 32).get_weights()
    provenance = Provenance("0" * 64, "synthetic", "none", {"note": "random weights"})
    recipe = Recipe("resnet18", "none", 32)
    wanted = ReleaseInput(recipe, [weights], images, validation, provenance, 0.9, False, False, float16=True)
    bundle, headline = release_on_worker(tmp_path, wanted, TrainingPlacement(1, 1, 0, 0.5))
    assert list(tmp_path.iterdir()) == [bundle.path]
    assert bundle.path.name == f"resnet18-{bundle.model_id}"
    assert headline["images"] == 64
    assert set(bundle.reports["tensorflow"]) >= {"float32", "float16"}
    assert (bundle.path / "MODEL_CARD.md").is_file()

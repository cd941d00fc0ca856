"""Images that the model was trained on are found by the hash of their file."""

import hashlib
import json
import shutil

import pytest
from support.scores import evaluate, scored

from jobs.evaluation.seen_images import EXAMPLES, find_seen_images
from pneumonia_core.bundles.bundle import open_bundle
from pneumonia_core.bundles.training_images import TRAINING_IMAGES, TrainingImages, read_training_images
from pneumonia_core.errors import InvalidInput
from pneumonia_core.findings import Thresholds
from pneumonia_core.reports.evaluation_page import evaluation_page
from pneumonia_core.reports.evaluation_text import evaluation_lines

KNOWN = TrainingImages(
    frozenset(hashlib.sha256(bytes([number])).hexdigest() for number in range(30)),
    frozenset(hashlib.sha256(bytes([number])).hexdigest() for number in range(30, 33)),
)


@pytest.fixture
def bundle(tiny_bundle, tmp_path):
    """A bundle that says what its network has seen."""
    folder = shutil.copytree(tiny_bundle.path, tmp_path / "bundle")
    (folder / TRAINING_IMAGES).write_bytes(KNOWN.as_parquet())
    document = json.loads((folder / "bundle.json").read_text())
    document["files"][TRAINING_IMAGES] = hashlib.sha256(KNOWN.as_parquet()).hexdigest()
    (folder / "bundle.json").write_text(json.dumps(document))
    return open_bundle(folder)


def row(number, status="scored"):
    sha256 = hashlib.sha256(bytes([number])).hexdigest() if status == "scored" else None
    return {"image_uri": f"file:///{number}.png", "image_sha256": sha256, "status": status}


def test_seen_images_are_counted_and_named(bundle):
    assert read_training_images(bundle) == KNOWN
    seen = find_seen_images([*map(row, range(29, 40)), row(1, "rejected")], bundle)
    assert seen == {"training": 1, "validation": 3, "examples": [f"file:///{n}.png" for n in range(29, 33)]}
    every = find_seen_images([row(number) for number in range(33)], bundle)
    assert len(every["examples"]) == EXAMPLES
    figures = {**evaluate(*scored(60), Thresholds(0.5, 0.5), bootstrap=10), "seen_images": seen}
    page = evaluation_page(figures, "a")
    assert "trained on 1 and calibrated or validated on 3" in page
    assert "file:///29.png" in page
    assert any("trained on 1" in line for line in evaluation_lines(figures))
    unseen = {**figures, "seen_images": find_seen_images([row(50)], bundle)}
    assert "the model was trained on" not in evaluation_page(unseen, "a")


def test_a_bundle_that_does_not_say_leaves_it_open(tiny_bundle):
    assert find_seen_images([row(1)], tiny_bundle) is None


def test_changed_hashes_are_noticed(bundle):
    (bundle.path / TRAINING_IMAGES).write_bytes(b"other")
    with pytest.raises(InvalidInput, match=TRAINING_IMAGES):
        open_bundle(bundle.path)

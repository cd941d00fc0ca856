"""The examples of pictures that came out wrong, where the machine has them."""

import json
from collections import Counter

import numpy as np
import pytest

from pneumonia_core.archives.archive import list_archive
from pneumonia_core.archives.skipped import SkipReason, may_hide_images
from pneumonia_core.imaging.contract import Decoded
from pneumonia_core.imaging.decode import read_image

# The folders of pictures; the others hold archives and tables.
PICTURES = ("01", "02", "03", "04", "05", "12", "13", "14", "15", "17", "18", "19", "20")


@pytest.fixture(scope="module")
def cases(shared_data):
    folder = shared_data.parent / "cases"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here")
    return folder


def test_every_example_of_a_picture_becomes_what_it_must(cases):
    expected = json.loads((cases / "expected.json").read_text())
    decoded: dict[str, Decoded] = {}
    warned: dict[str, bool] = {}
    for folder in sorted(path for path in cases.iterdir() if path.name.startswith(PICTURES)):
        skipped: Counter[SkipReason] = Counter()
        for image in list_archive(f"file://{folder}", skipped):
            path = image.uri.removeprefix(f"file://{cases}/")
            decoded[path] = read_image((cases / path).read_bytes(), 224)
        warned[folder.name] = bool(may_hide_images(skipped))
    checked = {path: case for path, case in expected.items() if path.startswith(PICTURES)}
    assert checked
    for path, case in checked.items():
        image = decoded.get(path)
        if image is None:
            assert case["want"] == "either", path
            assert warned[path.partition("/")[0]], path
            continue
        outcome = "rejected" if image.pixels is None else "scored"
        assert case["want"] in (outcome, "either"), (path, image.rejection)
        if image.pixels is not None and "same_as" in case:
            reference = decoded[case["same_as"]].pixels
            assert reference is not None
            assert np.abs(image.pixels.astype(int) - reference).mean() <= 2, path

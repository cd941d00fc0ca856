"""What is known of one image without a model."""

import hashlib
import io

import numpy as np
import pytest
from PIL import Image, ImageFilter
from support.images.pictures import as_jpeg

from pneumonia_core.archives.entries import FetchedImage, ImageRef
from pneumonia_core.datasets.image_facts import (
    IMAGE_FACTS,
    ImageFacts,
    border,
    facts_of_bytes,
    facts_of_image,
    sharpness,
)
from pneumonia_core.phantoms.radiograph import phantom


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return Image.fromarray(phantom(2, 1, 1, (200, 200)))


@pytest.mark.parametrize("quality", [1, 30, 50, 75, 95, 100])
def test_usual_quantisation_table_is_named_by_its_quality(picture, quality):
    facts = facts_of_bytes(as_jpeg(picture, quality))
    assert facts.quantisation == f"q{quality}"
    assert (facts.format, facts.mode, facts.width, facts.height) == ("jpeg", "L", 200, 200)


def test_table_of_another_encoder_is_named_by_its_hash(picture):
    facts = facts_of_bytes(as_jpeg(picture, qtables=[[7] * 64]))
    assert facts.quantisation == facts_of_bytes(as_jpeg(picture, qtables=[[7] * 64])).quantisation
    assert not facts.quantisation.startswith("q")


def test_mode_is_that_of_the_file(picture):
    for mode in ("L", "RGB", "RGBA", "P"):
        buffer = io.BytesIO()
        picture.convert(mode).save(buffer, "PNG")
        facts = facts_of_bytes(buffer.getvalue())
        assert (facts.format, facts.mode, facts.quantisation) == ("png", mode, None)


def test_broken_file_has_its_reason_and_what_is_known(picture):
    data = as_jpeg(picture)
    facts = facts_of_bytes(data[: len(data) // 2])
    assert facts.reason == "truncated"
    assert facts.sha256 == hashlib.sha256(data[: len(data) // 2]).hexdigest()
    assert (facts.width, facts.looks) == (200, None)
    assert facts_of_bytes(b"").reason == "empty"
    assert facts_of_bytes(b"no picture at all").reason == "not_an_image"
    assert facts_of_bytes(as_jpeg(Image.new("L", (64, 64), 9))).reason == "blank"


def test_image_that_cannot_be_read_has_its_reason_alone(tmp_path):
    facts = facts_of_image(FetchedImage(ImageRef(f"file://{tmp_path}/gone.jpeg")))
    assert facts == ImageFacts(reason="not_found")


def test_facts_have_the_columns_of_the_schema(picture):
    assert list(vars(facts_of_bytes(as_jpeg(picture)))) == IMAGE_FACTS.names


def test_dicom_has_its_photometric_interpretation(shared_data):
    modes = {facts_of_bytes(file.read_bytes()).mode for file in (shared_data / "dicom").glob("*.dcm")}
    assert modes <= {"MONOCHROME1", "MONOCHROME2"}
    assert modes


def test_grey_levels_of_a_picture_do_not_change_its_hash_much(picture):
    levels = np.asarray(picture).astype(float)
    darker = Image.fromarray((levels * 0.85 + 5).astype(np.uint8))
    one, two = (np.frombuffer(facts_of_bytes(as_jpeg(p)).looks, np.uint8) for p in (picture, darker))
    assert np.bitwise_count(one ^ two).sum() <= 12


def test_bars_beside_the_film_are_its_border():
    film = np.random.default_rng(0).integers(0, 256, (100, 100)).astype(np.uint8)
    assert border(film) == 0
    film[:, :10] = film[:, 90:] = 3
    assert border(film) == pytest.approx(0.2)
    film[60:] = 250
    assert border(film) == pytest.approx(1 - 0.8 * 0.6)
    assert border(np.zeros((8, 8), np.uint8)) == 1


def test_blur_lowers_the_sharpness_and_exposure_does_not_change_it(picture):
    film = np.asarray(picture)
    blurred = np.asarray(picture.filter(ImageFilter.GaussianBlur(2)))
    assert sharpness(blurred) < 0.7 * sharpness(film)
    assert sharpness(film // 2) == pytest.approx(sharpness(film), rel=0.1)


def test_exposure_is_the_mean_and_deviation_of_the_grey_levels(picture):
    buffer = io.BytesIO()
    picture.resize((224, 224)).save(buffer, "PNG")
    facts = facts_of_bytes(buffer.getvalue())
    pixels = np.asarray(picture.resize((224, 224)), float)
    assert (facts.brightness, facts.contrast) == pytest.approx((pixels.mean(), pixels.std()), abs=1)

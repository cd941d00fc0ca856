"""Synthetic X-rays: the same for one seed, quick, and no easier than they should be."""

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from sklearn.metrics import roc_auc_score

from pneumonia_core.datasets.labelled import read_labelled
from pneumonia_core.datasets.split import split_training
from pneumonia_core.errors import RejectedImage
from pneumonia_core.findings import BACTERIAL, CLASSES, NORMAL, VIRAL
from pneumonia_core.imaging.decode import decode
from pneumonia_core.phantoms.data_sets import write_archive, write_labelled
from pneumonia_core.phantoms.radiograph import phantom
from pneumonia_core.storage.ranges import read_file


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labelled")
    write_labelled(folder, 60, images_per_patient=2, seed=3, size=(128, 192))
    return folder


def test_phantom_is_the_same_for_the_same_seeds_and_differs_for_others() -> None:
    first = phantom(VIRAL, 5, 7, (96, 128))
    assert first.dtype == np.uint8
    assert first.shape == (96, 128)
    assert np.array_equal(first, phantom(VIRAL, 5, 7, (96, 128)))
    for other in (
        phantom(VIRAL, 6, 7, (96, 128)),
        phantom(VIRAL, 5, 8, (96, 128)),
        phantom(0, 5, 7, (96, 128)),
    ):
        assert not np.array_equal(first, other)


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (300, 200), (700, 1100)])
def test_phantom_has_contrast_at_every_size(size: tuple[int, int]) -> None:
    picture = phantom(BACTERIAL, 1, 1, size)
    assert picture.shape == size
    assert picture.std() > 20


def test_lungs_are_darker_than_the_spine_and_the_belly() -> None:
    pictures = np.stack([phantom(NORMAL, p, 0, (200, 200)) for p in range(10)]).astype(float)
    lung = pictures[:, 60:90, 55:70].mean(axis=(1, 2))
    spine = pictures[:, 60:90, 95:105].mean(axis=(1, 2))
    belly = pictures[:, 175:195, 80:120].mean(axis=(1, 2))
    assert (lung < spine - 20).all()
    assert (lung < belly - 20).all()


def test_consolidation_is_local_and_interstitial_pattern_lies_in_both_lungs() -> None:
    """The disease of one child is what differs from the same child well, brightness apart."""
    spread = {BACTERIAL: [], VIRAL: []}
    for label, patient in itertools.product(spread, range(15)):
        change = phantom(label, patient, 0, (256, 256)).astype(float) - phantom(
            NORMAL, patient, 0, (256, 256)
        )
        change = np.abs(change - np.median(change))
        left, right = change[:, :128].sum(), change[:, 128:].sum()
        spread[label].append(min(left, right) / max(left, right))
    assert np.mean(spread[VIRAL]) > np.mean(spread[BACTERIAL]) + 0.1


@pytest.mark.timeout(60)
def test_drawing_phantoms_is_quick() -> None:
    """15 ms each on an idle core; the rest is for a busy one."""
    for patient in range(200):
        phantom(patient % 3, patient, 0, (256, 256))


def test_brightness_contrast_and_file_size_barely_tell_the_classes(labelled: Path) -> None:
    images = read_labelled(str(labelled))
    labels = np.array([image.label for image in images])
    pixels = [np.asarray(Image.open(io.BytesIO(read_file(image.uri))), dtype=float) for image in images]
    cues = {
        "mean": np.array([p.mean() for p in pixels]),
        "std": np.array([p.std() for p in pixels]),
        "bytes": np.array([len(read_file(image.uri)) for image in images]),
        "bytes per pixel": np.array(
            [len(read_file(image.uri)) / p.size for image, p in zip(images, pixels, strict=True)]
        ),
        "width": np.array([p.shape[1] for p in pixels]),
        "aspect": np.array([p.shape[1] / p.shape[0] for p in pixels]),
    }
    for name, cue in cues.items():
        for positive, negative in [((1, 2), (0,)), ((1,), (0,)), ((2,), (0,)), ((1,), (2,))]:
            chosen = np.isin(labels, positive + negative)
            auroc = roc_auc_score(np.isin(labels[chosen], positive), cue[chosen])
            assert max(auroc, 1 - auroc) < 0.7, (name, positive, negative)


def test_labelled_set_is_read_as_kermany_with_no_patient_in_two_splits(labelled: Path) -> None:
    images = read_labelled(str(labelled))
    assert len(images) == 3 * 60 * 2
    patients = {split: {i.patient_id for i in images if i.split == split} for split in ("train", "test")}
    assert len(patients["test"]) == 45
    assert not patients["train"] & patients["test"]
    training, validation = split_training(images)
    assert {i.label for i in training} == {i.label for i in validation} == set(range(len(CLASSES)))


def test_labelled_set_is_written_the_same_twice(tmp_path: Path) -> None:
    first = write_labelled(
        tmp_path / "a", {"normal": 2, "bacterial": 3, "viral": 1}, 1, seed=8, size=(64, 96)
    )
    second = write_labelled(
        tmp_path / "b", {"normal": 2, "bacterial": 3, "viral": 1}, 1, seed=8, size=(64, 96)
    )
    assert len(first) == 6
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    other = write_labelled(
        tmp_path / "c", {"normal": 2, "bacterial": 3, "viral": 1}, 1, seed=9, size=(64, 96)
    )
    assert all(a.read_bytes() != b.read_bytes() for a, b in zip(first, other, strict=True))


def test_broken_archive_is_rejected_for_the_reasons_it_names(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "archive", 30, seed=1, broken=True, size=(96, 128))
    files = sorted(p for p in archive.folder.rglob("*") if p.is_file())
    assert len(files) == archive.files == 30
    assert len({p.parent for p in files}) == 5
    reasons = {}
    for file in files:
        try:
            assert decode(file.read_bytes(), 64).shape == (64, 64)
        except RejectedImage as rejection:
            reasons[str(file.relative_to(archive.folder))] = rejection.reason
    assert reasons == archive.rejected
    assert sorted(reasons.values()) == ["blank", "empty", "not_an_image", "too_small", "truncated"]
    assert archive.scored == 25


def test_rotated_picture_of_the_archive_is_upright_after_its_exif_tag(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "archive", 8, broken=True, size=(96, 128))
    (file,) = archive.folder.rglob("rotated.jpeg")
    stored = Image.open(file)
    assert stored.height > stored.width
    upright = np.asarray(ImageOps.exif_transpose(stored), dtype=float)
    assert upright.shape[1] > upright.shape[0]
    assert upright[-12:].mean() > upright[:12].mean()  # the belly is bright, the corners above are not


def test_archive_too_small_for_its_broken_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 8"):
        write_archive(tmp_path, 7, broken=True)

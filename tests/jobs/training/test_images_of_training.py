"""The images of a training, decoded over real Ray: from any archive, in order, and without what cannot be
read."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.images.archived import write_kinds

from jobs.training.images import BLOCK_IMAGES, decode_labelled, report_left_out
from pneumonia_core.archives.entries import ImageRef
from pneumonia_core.datasets.labelled import read_labelled
from pneumonia_core.datasets.split import split_training
from pneumonia_core.errors import InvalidInput
from pneumonia_core.imaging.decode import decode
from pneumonia_core.phantoms.data_sets import write_labelled
from pneumonia_core.storage.location import open_location


@pytest.fixture
def journals(tmp_path_factory):
    return open_location(str(tmp_path_factory.mktemp("training") / "decoding"))


def file_of(image) -> Path:
    return Path(image.uri.removeprefix("file://"))


def test_decoding_keeps_the_order_and_leaves_out_what_cannot_be_read(ray_here, journals, tmp_path, capsys):
    write_labelled(tmp_path, 30, 1, size=(64, 80), test_fraction=0)
    images, _ = split_training(read_labelled(str(tmp_path)))
    broken = [3, 70]
    for index in broken:
        file_of(images[index]).write_bytes(b"no picture")
    decoded = decode_labelled(images, 96, 1, "training", journals)
    readable = [image for index, image in enumerate(images) if index not in broken]
    np.testing.assert_array_equal(decoded.labels, [image.label for image in readable])
    assert decoded.patients.tolist() == [image.patient_id for image in readable]
    assert [len(part) for part in decoded.images.parts] == [
        BLOCK_IMAGES - 1,
        len(readable) - BLOCK_IMAGES + 1,
    ]
    pictures = decoded.images.first(len(images))
    for index in (0, 10, len(readable) - 1):
        expected = decode(file_of(readable[index]).read_bytes(), 96)
        np.testing.assert_array_equal(pictures[index], expected)
    assert (
        f"left out 2 of {len(images)} training images that cannot be read: 2 not_an_image"
        in capsys.readouterr().err
    )
    # What workers and the release are given are references, and what they load is shared memory. (Ray puts
    # blocks below 100 kB into the reference.)
    given = ray_here.put(decoded.images)
    size_bytes = ray_here.experimental.get_object_locations([given])[given]["object_size"]
    assert size_bytes < pictures.nbytes / 10
    assert not any(part.load().flags.owndata for part in decoded.images.parts)
    again = decode_labelled(images[::-1], 96, 1, "training", journals)
    assert again.digest == decoded.digest


def test_set_in_an_archive_gives_the_pixels_of_the_folder(ray_here, journals, tmp_path):
    write_labelled(tmp_path / "set", 4, 1, size=(64, 80), test_fraction=0)
    files = {
        str(path.relative_to(tmp_path / "set")): path.read_bytes()
        for path in sorted((tmp_path / "set").rglob("*.jpeg"))
    }
    kinds = write_kinds(tmp_path, files)
    shuffled = np.random.default_rng(1).permutation(len(files))
    decoded = {}
    for kind in ("folder", "a.zip", "a.tar.gz"):
        images = read_labelled(str(kinds[kind]))
        decoded[kind] = decode_labelled([images[number] for number in shuffled], 32, 1, "training", journals)
    pixels = decoded["folder"].images.first(len(files))
    for kind in ("a.zip", "a.tar.gz"):
        assert decoded[kind].digest == decoded["folder"].digest
        assert decoded[kind].patients.tolist() == decoded["folder"].patients.tolist()
        np.testing.assert_array_equal(decoded[kind].images.first(len(files)), pixels)


def test_picture_that_kills_its_decoder_costs_itself_alone(
    ray_here, worker_rules, journals, tmp_path, capsys
):
    write_labelled(tmp_path, 5, 1, size=(64, 80), test_fraction=0)
    images = read_labelled(str(tmp_path))
    worker_rules.set(f"decode@{file_of(images[4]).name}=abort")
    try:
        decoded = decode_labelled(images, 32, 1, "training", journals)
    finally:
        worker_rules.set()
    assert decoded.patients.tolist() == [image.patient_id for image in [*images[:4], *images[5:]]]
    assert "1 crashed_decoder" in capsys.readouterr().err
    assert not file_of(images[0]).with_name("decoding").exists()


def test_training_images_whose_content_is_in_validation_are_left_out(ray_here, journals, tmp_path, capsys):
    write_labelled(tmp_path, 2, 1, size=(64, 80), test_fraction=0)
    images = read_labelled(str(tmp_path))
    images.sort(key=lambda image: image.label)
    validation, training = images[::2], images[1::2]
    copies = [
        dataclasses.replace(image, ref=ImageRef(f"{image.uri}.copy"), patient_id="other")
        for image in validation
    ]
    for image, copy in zip(validation, copies, strict=True):
        shutil.copy(file_of(image), file_of(copy))
    validated = decode_labelled(validation, 32, 1, "validation", journals).contents
    decoded = decode_labelled([copies[0], *training, *copies[1:]], 32, 1, "training", journals, validated)
    assert decoded.patients.tolist() == [image.patient_id for image in training]
    assert len(decoded.images) == len(training)
    assert "left out 3 of 6 training images whose content is in validation" in capsys.readouterr().err
    with pytest.raises(InvalidInput, match=r"(?s)normal.*bacterial.*viral.*training"):
        decode_labelled(copies, 32, 1, "training", journals, validated)


def test_set_that_the_workers_cannot_read_is_refused(ray_here, journals, tmp_path):
    write_labelled(tmp_path, 4, 1, size=(64, 80), test_fraction=0)
    images = read_labelled(str(tmp_path))
    gone = [dataclasses.replace(image, ref=ImageRef(f"{image.uri}.gone")) for image in images]
    with pytest.raises(InvalidInput, match=r"12 of 12 training images .*12 not_found"):
        decode_labelled(gone, 32, 1, "training", journals)


@pytest.mark.parametrize(("reason", "is_copy"), [("truncated", False), ("", True)])
def test_class_of_which_nothing_is_left_is_refused_before_a_training_is_spent_on_it(reason, is_copy):
    """One of forty images is within what may be unreadable, but it was the only viral one."""
    labels = [0] * 20 + [1] * 19 + [2]
    reasons, copies = [""] * 39 + [reason], [False] * 39 + [is_copy]
    with pytest.raises(InvalidInput, match=r"viral.*validation"):
        report_left_out(labels, reasons, copies, "validation")
    labels[38] = 2
    report_left_out(labels, reasons, copies, "validation")

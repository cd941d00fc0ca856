"""`pneumonia recalibrate`: from labelled files to a new bundle."""

import pytest
from support.scoring import pneumonia

from jobs.recalibration.recalibrate import RecalibrateOptions, recalibrate_bundle
from pneumonia_core.bundles.bundle import open_bundle
from pneumonia_core.bundles.training_images import read_training_images
from pneumonia_core.errors import InvalidInput
from pneumonia_core.phantoms.data_sets import write_labelled


def test_new_bundle_is_fitted_to_the_files(ray_here, guarded_bundle, tmp_path):
    write_labelled(tmp_path / "local", 12, 1, seed=9)
    options = RecalibrateOptions(
        str(guarded_bundle.path), str(tmp_path / "local"), str(tmp_path / "models"), sensitivity=0.8
    )
    result = recalibrate_bundle(options)
    bundle = open_bundle(result["bundle"])
    assert (result["state"], result["model_id"], result["from"]) == (
        "done", bundle.model_id, guarded_bundle.model_id,
    )  # fmt: skip
    assert result["images"] == result["patients"] == bundle.document["training"]["recalibration"]["images"]
    assert len(read_training_images(bundle).validation) == result["images"]
    assert result["sensitivity"]["value"] >= 0.8
    assert result["thresholds"]["pneumonia"] == bundle.thresholds.pneumonia


def test_network_that_cannot_be_built_again_is_refused_before_ray_starts(tiny_bundle, tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text("uri,label,patient_id,split\na.png,normal,p,test\nb.png,viral,q,test\n")
    with pytest.raises(InvalidInput, match="its network tiny is none of"):
        recalibrate_bundle(RecalibrateOptions(str(tiny_bundle.path), str(table), str(tmp_path)))


def test_images_of_one_class_are_wrong_input(tmp_path):
    (tmp_path / "labels.csv").write_text("uri,label,patient_id,split\na.png,normal,p,test\n")
    done = pneumonia(
        "recalibrate", tmp_path / "absent", "--data", tmp_path / "labels.csv", "--models", tmp_path
    )
    assert done.returncode == 2
    assert "with and without pneumonia" in done.stderr

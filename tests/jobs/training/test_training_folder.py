"""The folder of a training: new, unfinished, resumed, finished."""

from dataclasses import asdict
from pathlib import Path

import pytest

from jobs.training.folder import check_nothing_else_to_resume, open_training
from jobs.training.train import make_request, train
from pneumonia_core.errors import InvalidInput
from pneumonia_core.phantoms.data_sets import write_labelled
from pneumonia_core.storage.files import make_folder, write_bytes
from pneumonia_core.storage.location import open_location
from pneumonia_core.training.recipe import Recipe


def whole(**changed):
    """All settings of a training, some of them changed."""
    return {**asdict(Recipe()), **changed}


def unfinished(storage, settings, name="t"):
    run = open_training(storage, name, settings, resume=False)
    make_folder(run.folder.child("checkpoint_1"))
    write_bytes(run.folder.child("checkpoint_1").child("state.json"), b"{}")
    return run


def test_an_unfinished_training_is_not_overwritten_but_resumed(tmp_path):
    storage = open_location(str(tmp_path))
    unfinished(storage, whole(epochs=3))
    with pytest.raises(InvalidInput, match=rf"--resume.*file://{tmp_path}/t"):
        open_training(storage, "t", whole(epochs=3), resume=False)
    assert open_training(storage, "t", whole(epochs=3), resume=True).result is None


def test_resuming_with_other_options_shows_the_difference(tmp_path):
    storage = open_location(str(tmp_path))
    unfinished(storage, whole(epochs=3, seed=0))
    with pytest.raises(InvalidInput, match=r"epochs: 3.*4") as refused:
        open_training(storage, "t", whole(epochs=4, seed=0), resume=True)
    assert "seed" not in str(refused.value)


def test_resuming_with_other_options_under_the_name_of_the_options_shows_the_difference_to_the_nearest(
    tmp_path,
):
    storage = open_location(str(tmp_path))
    check_nothing_else_to_resume(storage, "new", whole(epochs=4))
    for name, settings in (("a", whole(epochs=3, seed=5)), ("b", whole(epochs=3)), ("c", whole(epochs=4))):
        run = unfinished(storage, settings, name)
        if name == "c":
            run.finish({"state": "done"})
    with pytest.raises(InvalidInput, match=r"unfinished one b has others: epochs: 3 \(run\) / 4 \(now\)\. "):
        check_nothing_else_to_resume(storage, "new", whole(epochs=4))
    check_nothing_else_to_resume(storage, "b", whole(epochs=3))


def test_training_resumed_with_a_changed_option_begins_no_other(tmp_path):
    data, models = str(tmp_path / "data"), tmp_path / "models"
    write_labelled(Path(data), 4, 1, size=(40, 50))
    options = {"data": data, "models": str(models), "network": "resnet18", "resume": True}
    unfinished(open_location(str(models / "training")), make_request(**options).settings(), "t")
    with pytest.raises(
        InvalidInput, match=r"unfinished one t has others: batch_size: \d+ \(run\) / 8 \(now\)"
    ):
        train(make_request(**options, batch_size=8))


def of_earlier_version(**options):
    """The settings of version 0.1.0, which had no `flip`, and no option for `averaging`."""
    settings = {**whole(**options), "averaging": 0.98}
    del settings["flip"]
    return settings


def test_an_unfinished_training_of_an_earlier_version_is_not_gone_on_with(tmp_path):
    storage = open_location(str(tmp_path))
    unfinished(storage, of_earlier_version(epochs=3))
    for name in ("t", "the name that this version chooses"):
        with pytest.raises(InvalidInput, match=r"the training t in .* earlier version"):
            open_training(storage, name, whole(epochs=3), resume=True)
    other = open_training(storage, "another", whole(epochs=4), resume=True)
    assert (other.name, other.result) == ("another", None)


def test_a_finished_training_of_an_earlier_version_tells_its_result(tmp_path):
    storage = open_location(str(tmp_path))
    unfinished(storage, of_earlier_version(epochs=3)).finish({"state": "done"})
    for coverage, result in ((None, {"state": "done"}), (0.8, None)):
        asked = whole(epochs=3) if coverage is None else whole(epochs=3, coverage=coverage)
        assert open_training(storage, f"new {coverage}", asked, resume=True).result == result


def test_resuming_on_other_images_is_refused(tmp_path):
    run = unfinished(open_location(str(tmp_path)), {})
    run.pin_data("abc")
    run.pin_data("abc")
    with pytest.raises(InvalidInput, match=rf"file://{tmp_path}/t.*--name"):
        run.pin_data("abd")


def test_a_finished_training_keeps_its_result_and_no_checkpoint(tmp_path):
    storage = open_location(str(tmp_path))
    run = unfinished(storage, whole(epochs=3))
    (tmp_path / "t" / ".validate_storage_marker").touch()
    run.finish({"state": "done"})
    assert [file.name for file in sorted((tmp_path / "t").iterdir())] == ["result.json", "settings.json"]
    assert open_training(storage, "t", whole(epochs=3), resume=True).result == {"state": "done"}
    assert open_training(storage, "t", whole(epochs=4), resume=False).result is None


def test_what_else_lies_in_a_training_s_folder_is_left_alone(tmp_path):
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "labels.csv").write_text("mine")
    with pytest.raises(InvalidInput, match="not empty"):
        open_training(open_location(str(tmp_path)), "t", {}, resume=False)
    run = unfinished(open_location(str(tmp_path / "storage")), {})
    (tmp_path / "storage" / "t" / "notes.txt").write_text("mine")
    run.finish({"state": "done"})
    assert (tmp_path / "storage" / "t" / "notes.txt").exists()


def test_resume_begins_a_training_that_has_not_begun(tmp_path):
    assert open_training(open_location(str(tmp_path)), "t", {}, resume=True).result is None


def test_only_a_training_with_a_checkpoint_goes_on(tmp_path):
    storage = open_location(str(tmp_path))
    assert not open_training(storage, "t", {}, resume=False).has_checkpoint
    assert unfinished(storage, {}).has_checkpoint


def test_a_training_by_folds_is_one_training(tmp_path):
    storage = open_location(str(tmp_path))
    run = open_training(storage, "t", whole(folds=2), resume=False)
    for number in range(2):
        fold = run.open_fold(number)
        fold.pin_data("digest")
        make_folder(fold.folder.child("checkpoint_1"))
        write_bytes(fold.folder.child("checkpoint_1").child("state.json"), b"{}")
    with pytest.raises(InvalidInput, match="--resume"):
        open_training(storage, "t", whole(folds=2), resume=False)
    resumed = open_training(storage, "t", whole(folds=2), resume=True)
    with pytest.raises(InvalidInput, match="the training t began with other images"):
        resumed.open_fold(1).pin_data("another")
    resumed.finish({"state": "done"})
    assert sorted(path.name for path in (tmp_path / "t").iterdir()) == ["result.json", "settings.json"]

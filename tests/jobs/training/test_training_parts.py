"""The parts of a training that need no network: workers, batches, decoding, the run's folder."""

import numpy as np
import pytest

from jobs.ray_runtime.resources import Node
from jobs.training.batches import batches_of_epoch, prefetched
from jobs.training.folder import open_training
from jobs.training.placement import cpus_per_worker, plan_workers
from pneumonia_core.errors import InvalidInput
from pneumonia_core.storage.files import make_folder, write_bytes
from pneumonia_core.storage.location import open_location
from pneumonia_core.training.recipe import Recipe, check_first_stage


@pytest.mark.parametrize(
    ("nodes", "workers", "cpus"),
    [
        ([1], 1, 0.5),
        ([1], 2, 0.25),
        ([2], 1, 1),
        ([2], 2, 0.5),
        ([4], 2, 1),
        ([8], 2, 3),
        ([16, 16, 16, 16], 4, 15),
        ([4, 64], 1, 64),
        ([4, 64], 2, 32),
        ([0.5], 1, 0.25),
    ],
)
def test_workers_leave_room_for_tasks_and_fit_on_the_nodes(nodes, workers, cpus):
    reserve = 1.0 if sum(nodes) >= 2 else min(0.5, sum(nodes) / 2)
    size = cpus_per_worker([Node(cpus) for cpus in nodes], workers, reserve)
    assert size == cpus
    assert size * workers <= sum(nodes) - reserve
    assert sum(node // size for node in nodes) >= workers


def test_by_default_there_is_a_worker_per_node_or_per_gpu():
    assert plan_workers(None, 0, 32, [Node(8), Node(8)]).count == 2
    plan = plan_workers(None, 4, 32, [Node(64, 8)])
    assert (plan.count, plan.gpus) == (4, 1)


def test_fewer_workers_than_gpus_have_several_each():
    plan = plan_workers(2, 8, 64, [Node(64, 4), Node(64, 4)])
    assert (plan.count, plan.cpus, plan.gpus) == (2, 63, 4)


def test_as_many_of_the_nodes_train_as_share_the_batch_evenly():
    assert [plan_workers(None, 0, 64, [Node(8)] * count).count for count in (3, 5, 7, 8)] == [2, 4, 4, 8]


def test_workers_with_gpus_are_sized_for_the_nodes_that_have_them():
    plan = plan_workers(None, 2, 64, [Node(16), Node(16), Node(8, 1), Node(8, 1)])
    assert (plan.count, plan.cpus, plan.gpus) == (2, 8, 1)


def test_plans_that_cannot_be_say_what_to_change():
    with pytest.raises(InvalidInput, match="give 33"):
        plan_workers(3, 0, 32, [Node(8)])
    with pytest.raises(InvalidInput, match="the cluster has 0"):
        plan_workers(None, 1, 32, [Node(8)])
    with pytest.raises(InvalidInput, match="leave --workers out"):
        plan_workers(2, 3, 32, [Node(8, 3)])
    with pytest.raises(InvalidInput, match="by 4 GPUs: give 36"):
        plan_workers(2, 4, 34, [Node(8, 4)])
    with pytest.raises(InvalidInput, match=r"4 of a node .* the nodes have 2, 2"):
        plan_workers(1, 4, 32, [Node(8, 2), Node(8, 2)])


@pytest.fixture(scope="module")
def shard(ray_here):
    """Ten rows whose pictures hold their number."""
    import pyarrow as pa
    import ray.data

    images = np.repeat(np.arange(10, dtype=np.uint8), 16).reshape(10, 4, 4)
    rows = ray.data.from_numpy(images).rename_columns({"data": "image"})
    rows = rows.add_column("label", lambda table: pa.array([0] * len(table)), batch_format="pyarrow")
    rows = rows.materialize()
    rows.context.execution_options.preserve_order = True
    return rows.iterator()


@pytest.mark.parametrize(("size", "steps"), [(4, 2), (4, 5), (3, 1), (16, 2)])
def test_every_worker_gets_exactly_its_steps_of_full_batches(shard, size, steps):
    batches = list(batches_of_epoch(shard, size, steps, seed=1))
    assert [len(images) for images, _ in batches] == [size] * steps
    shown = [int(image[0, 0]) for images, _ in batches for image in images]
    if size * steps <= 10:
        assert len(set(shown)) == len(shown)


def test_batches_come_in_another_order_with_another_seed(shard):
    def order(seed):
        return [int(image[0, 0]) for images, _ in batches_of_epoch(shard, 5, 2, seed) for image in images]

    assert order(1) == order(1)
    assert order(1) != order(2)


def test_prefetching_gives_the_same_items_and_the_makers_error():
    def items():
        yield from range(5)
        raise ValueError("no more")

    got = []
    with pytest.raises(ValueError, match="no more"):  # noqa: PT012 - what came before the error counts
        for item in prefetched(items()):
            got.append(item)
    assert got == list(range(5))


def test_prefetching_that_is_left_early_stops_its_maker():
    made = []

    def items():
        for number in range(1000):
            made.append(number)
            yield number

    reader = prefetched(items(), depth=2)
    assert next(reader) == 0
    reader.close()
    assert len(made) < 10


def unfinished(storage, settings):
    run = open_training(storage, "t", settings, resume=False)
    make_folder(run.folder.child("checkpoint_1"))
    write_bytes(run.folder.child("checkpoint_1").child("state.json"), b"{}")
    return run


def test_an_unfinished_training_is_not_overwritten_but_resumed(tmp_path):
    storage = open_location(str(tmp_path))
    unfinished(storage, {"epochs": 3})
    with pytest.raises(InvalidInput, match=rf"--resume.*delete file://{tmp_path}/t to"):
        open_training(storage, "t", {"epochs": 3}, resume=False)
    assert open_training(storage, "t", {"epochs": 3}, resume=True).result is None


def test_resuming_with_other_options_shows_the_difference(tmp_path):
    storage = open_location(str(tmp_path))
    unfinished(storage, {"epochs": 3, "seed": 0})
    with pytest.raises(InvalidInput, match="epochs: 3 then, 4 now") as refused:
        open_training(storage, "t", {"epochs": 4, "seed": 0}, resume=True)
    assert "seed" not in str(refused.value)


def test_resuming_on_other_images_is_refused(tmp_path):
    run = unfinished(open_location(str(tmp_path)), {})
    run.pin_data("abc")
    run.pin_data("abc")
    with pytest.raises(InvalidInput, match=rf"not those.*delete file://{tmp_path}/t or give another --name"):
        run.pin_data("abd")


def test_a_finished_training_keeps_its_result_and_no_checkpoint(tmp_path):
    storage = open_location(str(tmp_path))
    run = unfinished(storage, {"epochs": 3})
    (tmp_path / "t" / ".validate_storage_marker").touch()
    run.finish({"state": "done"})
    assert [file.name for file in sorted((tmp_path / "t").iterdir())] == ["result.json", "settings.json"]
    assert open_training(storage, "t", {"epochs": 3}, resume=True).result == {"state": "done"}
    assert open_training(storage, "t", {"epochs": 4}, resume=False).result is None


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


def test_a_training_that_starts_anew_leaves_no_curve_of_an_earlier_one(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from jobs.training.tensorboard import EventLog

    def logged(loss, anew):
        with EventLog(tmp_path, anew) as log:
            log.scalars(1, {"loss": loss})
        events = EventAccumulator(str(tmp_path))
        events.Reload()
        return [round(event.value, 1) for event in events.Scalars("loss")]

    (tmp_path / "notes.txt").touch()
    assert logged(0.5, anew=True) == [0.5]
    assert logged(0.9, anew=False) == [0.5, 0.9]
    assert logged(0.1, anew=True) == [0.1]
    assert (tmp_path / "notes.txt").exists()


TRUNK = ("conv1", "layer1", "layer2", "layer3")


@pytest.mark.parametrize(
    ("train_from", "loaded", "fresh"),
    [
        ("head", TRUNK, "layer4"),
        ("layer1", (), "conv1"),
        ("head", ("layer1", "layer2", "layer3", "layer4"), "conv1"),
        ("layer4", TRUNK, None),
        ("layer2", TRUNK, None),
        ("head", (*TRUNK, "layer4"), None),
        ("head", (*TRUNK, "layer4", "head"), None),
        (None, (), None),
    ],
)
def test_a_stage_is_not_frozen_without_loaded_weights(train_from, loaded, fresh):
    recipe = Recipe(weights="trunk.npz", train_from=train_from)
    if fresh is None:
        check_first_stage(recipe, loaded)
        return
    with pytest.raises(InvalidInput, match=f"the stage {fresh} has no loaded weights.* Train from .*{fresh}"):
        check_first_stage(recipe, loaded)

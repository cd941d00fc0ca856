"""What Ray Train runs on each worker: epochs of steps, validation, a checkpoint after each."""

import json
import os
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jobs.training.initial_state import WorkerConfig, starting_point
from pneumonia_core.errors import PneumoniaError
from pneumonia_core.training.checkpoint import InitialState, numbered, weights_of
from pneumonia_core.training.recipe import Recipe, best_epoch, is_over
from pneumonia_core.training.validation import validation_figures

PROGRESS_INTERVAL_S = 2.0
SHOWN_IMAGES = 16
PACK_BYTES = 8 << 20  # gradients travel in packs of this size; all in one pack took a tenth more of the step


def train_on_worker(config: dict[str, Any]) -> dict[str, Any] | None:
    """Train this worker's part of `config["assignment"]`.

    A lost worker or network is raised, for Ray Train to start all workers again from the last checkpoint.
    An error that would come again is pinned to the board first, and the workers started next return
    at once.
    """
    import ray

    assignment: WorkerConfig = config["assignment"]
    if ray.get(assignment.board.failure.remote()) is not None:
        return None
    try:
        return _train(assignment)
    except Exception as error:
        if not _may_pass(error):
            ray.get(assignment.board.pin_failure.remote(_described(error)))
        raise


def _train(assignment: WorkerConfig) -> dict[str, Any]:
    import keras
    import ray
    import ray.train
    import tensorflow as tf

    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    _set_up_tensorflow(context.get_local_world_size(), assignment.gpus)
    strategy = tf.distribute.MultiWorkerMirroredStrategy(
        communication_options=tf.distribute.experimental.CommunicationOptions(bytes_per_pack=PACK_BYTES)
    )
    keras.utils.set_random_seed(assignment.recipe.seed + rank)
    start, weights, state = starting_point(assignment, rank)
    learner = _learner(assignment, start, weights, strategy)
    restored = state is not None
    if state is not None:
        learner.restore(state, rank)
    best = [] if state is None else weights_of("best", state)
    del weights, state
    validation = _Validation.of(assignment, rank, world)
    history = list(start.history)
    if rank == 0:
        _post(assignment, {"kind": "start", **asdict(start), "history": None})
    shard = ray.train.get_dataset_shard("train")
    if not restored and start.fresh_from == "head":
        images = fit_linear_probe(learner, shard, start.recipe, assignment.class_weights)
        figures, _ = validation.measure(learner)
        if rank == 0:
            _post(assignment, {"kind": "head", "images": images, **figures})
    while not is_over(start.recipe, history):
        epoch = len(history)
        trained = _train_epoch(learner, shard, assignment, start.recipe, epoch, rank, world)
        learner.share_statistics()
        figures, probabilities = validation.measure(learner)
        history.append({"epoch": epoch + 1, **trained, **figures})
        if best_epoch(history) == len(history):
            best = learner.averaged.get_weights()
        _report(learner, start, history, best, rank)
        if rank == 0:
            _post(assignment, {"kind": "epoch", **history[-1], "probabilities": probabilities})
    return {"history": history, "start": {**asdict(start), "history": None}}


def _set_up_tensorflow(workers_on_this_node: int, gpus: int) -> None:
    import tensorflow as tf

    if not gpus:
        # Ray hides no GPU from a worker that asked for none.
        tf.config.set_visible_devices([], "GPU")

    threads = max(1, _cpus_of_this_node() // workers_on_this_node)
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    # No more operations at once than cores: two workers of a core each lost a tenth to one another's caches.
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    for gpu in tf.config.get_visible_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)


def _cpus_of_this_node() -> int:
    """What Ray may use here, which can be less than the machine has, and the other way round."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    granted = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["NodeID"] == here]
    return max(1, min(int(sum(granted)), len(os.sched_getaffinity(0))))


def _learner(assignment: WorkerConfig, start: InitialState, weights: list[np.ndarray], strategy: Any) -> Any:
    from pneumonia_core.training.learner import Learner

    return Learner(
        start.recipe,
        weights,
        start.first_stage,
        assignment.class_weights,
        assignment.steps_per_epoch,
        strategy,
        start.fresh_from,
    )


def _train_epoch(
    learner: Any, shard: Any, assignment: WorkerConfig, recipe: Recipe, epoch: int, rank: int, world: int
) -> dict[str, Any]:
    """Train for one epoch; its loss, learning rate and speed. The speed leaves out the first step, which
    compiles."""
    from jobs.training.batches import prefetched

    steps = assignment.steps_per_epoch
    losses, waited_s, told = [], 0.0, time.monotonic()
    batches = prefetched(_augmentable(shard, recipe, steps, epoch, rank, world))
    started = time.perf_counter()
    for number in range(steps):
        asked = time.perf_counter()
        batch = next(batches)
        waited_s += time.perf_counter() - asked if number else 0.0
        if rank == number == epoch == 0:
            _post(assignment, {"kind": "inputs", "images": learner.augmented(batch.first(SHOWN_IMAGES))})
        losses.append(float(learner.step(batch)))
        if number == 0:
            started = time.perf_counter()
        if rank == 0 and time.monotonic() - told > PROGRESS_INTERVAL_S:
            told = time.monotonic()
            _post(
                assignment,
                {"kind": "step", "epoch": epoch + 1, "step": number + 1, "loss": losses[-1] * world},
            )
    batches.close()  # type: ignore[attr-defined]
    seconds = time.perf_counter() - started
    loss = float(learner.total(np.float64(sum(losses)))) / steps
    if not np.isfinite(loss):
        raise PneumoniaError(
            f"the loss of epoch {epoch + 1} is not a number: the network diverged. Lower --learning-rate."
        )
    return {
        "loss": loss,
        "learning_rate": learner.learning_rate,
        "images_per_s": (steps - 1) * recipe.batch_size / seconds if steps > 1 else 0.0,
        "waited_for_data_s": waited_s,
    }


def _augmentable(shard: Any, recipe: Recipe, steps: int, epoch: int, rank: int, world: int) -> Iterator[Any]:
    """The batches of this worker in this epoch: what the step's augmentation needs is drawn here."""
    from jobs.training.batches import batches_of_epoch
    from pneumonia_core.training.augment import draw, reencode_some
    from pneumonia_core.training.learner import TrainingBatch

    rng = np.random.default_rng([recipe.seed, epoch, rank])
    size = recipe.batch_size // world
    for images, labels in batches_of_epoch(shard, size, steps, recipe.seed + epoch):
        yield TrainingBatch(
            reencode_some(images, rng), labels.astype(np.int32), draw(rng, size, recipe.image_size)
        )


@dataclass(frozen=True)
class _Validation:
    """Every n-th validation image is this worker's; together each is scored exactly once."""

    images: np.ndarray
    labels: np.ndarray
    rank: int
    world: int

    @classmethod
    def of(cls, assignment: WorkerConfig, rank: int, world: int) -> "_Validation":
        import ray

        images, labels = ray.get([assignment.validation_images, assignment.validation_labels])
        return cls(images[rank::world], labels, rank, world)

    def measure(self, learner: Any) -> tuple[dict[str, Any], np.ndarray]:
        """Figures of the averaged network on all validation images, and its probabilities for them float32 [N, 3];
        a collective operation."""
        from scipy.special import softmax

        started = time.perf_counter()
        logits = np.zeros((len(self.labels), 3), np.float32)
        logits[self.rank :: self.world] = learner.logits(self.images)
        logits = learner.total(logits)
        probabilities = softmax(logits.astype(np.float64), axis=1)
        figures = validation_figures(self.labels, probabilities)
        return {**figures, "validation_s": time.perf_counter() - started}, probabilities.astype(np.float32)


def _report(
    learner: Any, start: InitialState, history: list[dict[str, Any]], best: list[np.ndarray], rank: int
) -> None:
    """Hand Ray Train the epoch's figures and, from rank 0, a checkpoint; all workers wait for each other."""
    import ray.train

    if rank != 0:
        ray.train.report({})
        return
    with tempfile.TemporaryDirectory() as folder:
        # Only a training that may end before its schedule needs its best epoch again.
        kept: dict[str, Any] = numbered("best", best if start.recipe.patience else ())
        np.savez(Path(folder) / "state.npz", **learner.state(), **kept)
        document = {**asdict(start), "epoch": history[-1]["epoch"], "history": history}
        (Path(folder) / "state.json").write_text(json.dumps(document), encoding="utf-8")
        ray.train.report(history[-1], checkpoint=ray.train.Checkpoint.from_directory(folder))


def _post(assignment: WorkerConfig, note: dict[str, Any]) -> None:
    assignment.board.post.remote(note)


def _may_pass(error: Exception) -> bool:
    """Whether starting again could help: a lost peer, network or disk, not a wrong value or a full memory."""
    import ray
    import tensorflow as tf

    if isinstance(error, PneumoniaError):
        return False
    if isinstance(error, tf.errors.OpError):
        codes = (
            tf.errors.InvalidArgumentError,
            tf.errors.ResourceExhaustedError,
            tf.errors.UnimplementedError,
        )
        return not isinstance(error, codes)
    return isinstance(error, (ray.exceptions.RayError, ConnectionError, TimeoutError, OSError))


def _described(error: Exception) -> dict[str, Any]:
    expected = isinstance(error, PneumoniaError)
    return {
        "exit_code": error.exit_code if isinstance(error, PneumoniaError) else 1,
        "text": str(error) if expected else f"{type(error).__name__}: {error}",
        "trace": None if expected else traceback.format_exc(),
    }


def fit_linear_probe(learner: Any, shard: Any, recipe: Recipe, class_weights: tuple[float, ...]) -> int:
    """Give the learner a head that fits its trunk; a collective operation. Returns how many images it was fitted to."""
    from pneumonia_core.training.head import fit_head

    nothing = np.zeros((0, recipe.image_size, recipe.image_size), np.uint8)
    features, labels = [learner.features(nothing)], [np.zeros(0, np.int64)]
    for batch in shard.iter_batches(batch_size=recipe.batch_size, batch_format="numpy", prefetch_batches=2):
        features.append(learner.features(batch["image"]))
        labels.append(batch["label"])
    head = fit_head(
        np.concatenate(features),
        np.concatenate(labels),
        class_weights,
        recipe.label_smoothing,
        learner.total,
    )
    learner.set_head(*head)
    return int(learner.total(np.float64(sum(map(len, labels)))))

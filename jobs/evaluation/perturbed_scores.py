"""Images scored as they are and after each perturbation, by the same engine on the same cluster."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
import pyarrow as pa

from jobs.console.output import Progress, say
from jobs.scoring.actors import ChunkJob, EngineOnce
from jobs.scoring.pipeline import ship_bundle
from jobs.scoring.placement import Placement, choose_placement
from pneumonia_core.bundles.bundle import Bundle
from pneumonia_core.errors import RejectedImage
from pneumonia_core.scoring.chunk import RowConstants
from pneumonia_core.storage.location import Location, open_location

# With eleven pictures of each, that many fill three batches of the engine.
IMAGES_PER_BLOCK: Final = 8


def score_perturbed(
    uris: Sequence[str],
    ill: np.ndarray,
    aspects: Mapping[bool, float] | None,
    bundle: Bundle,
    engine: str,
    precision: str,
    folder: Location,
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the images that could be perturbed, and their probabilities float32 [N, 1 + P, 3]: as they are,
    then after each of robustness.perturbations.

    `aspects` are those to aim at, by whether an image shows pneumonia (`ill` bool [N]).
    """
    import ray
    from ray.data import ActorPoolStrategy

    shape = choose_placement("auto")
    gpu = shape.actor_gpus > 0
    facts = RowConstants("", bundle.model_id, engine, bundle.thresholds, bundle.image_size)
    job = ChunkJob(folder, facts, precision, gpu, ship_bundle(bundle, engine))
    blocks = _blocks(uris, ill, aspects)
    scorer: Any = ScorePerturbed
    data: Any = ray.data.from_arrow(blocks).map_batches(
        scorer,
        fn_args=(job,),
        fn_constructor_args=(shape.actor_threads,),
        compute=_pool(shape, len(blocks), ActorPoolStrategy),
        num_cpus=shape.actor_cpus,
        num_gpus=shape.actor_gpus or None,
        batch_size=None,
        batch_format="pyarrow",
    )
    numbers: list[int] = []
    scores: list[np.ndarray] = []
    with Progress(len(uris), "images", "perturbing") as progress:
        for table in data.iter_batches(batch_size=None, batch_format="pyarrow"):
            numbers += table["number"].to_pylist()
            scores += [np.frombuffer(row, np.float32).reshape(-1, 3) for row in table["scores"].to_pylist()]
            progress.advance(table.num_rows)
    if len(numbers) < len(uris):
        say(f"{len(uris) - len(numbers)} images could not be perturbed: left out of the robustness table")
    order = np.argsort(numbers)
    return np.array(numbers, np.int64)[order], np.array(scores, np.float32)[order]


def _blocks(uris: Sequence[str], ill: np.ndarray, aspects: Mapping[bool, float] | None) -> list[pa.Table]:
    table = pa.table(
        {
            "number": pa.array(range(len(uris)), pa.int64()),
            "uri": list(uris),
            "aspect": pa.array(
                [None if aspects is None else aspects[bool(sick)] for sick in ill], pa.float64()
            ),
        }
    )
    return [table.slice(start, IMAGES_PER_BLOCK) for start in range(0, len(uris), IMAGES_PER_BLOCK)]


def _pool(shape: Placement, blocks: int, strategy: Any) -> Any:
    return strategy(min_size=shape.min_actors, max_size=max(shape.min_actors, min(shape.max_actors, blocks)))


class ScorePerturbed:
    """Reads, perturbs and scores some images in one process, as many at a time as it has threads."""

    def __init__(self, threads: int) -> None:
        self._engine = EngineOnce(threads)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="perturb")

    def __call__(self, rows: pa.Table, job: ChunkJob) -> pa.Table:
        sizes = [job.facts.image_size] * rows.num_rows
        squares = list(self._pool.map(_perturbed, rows["uri"].to_pylist(), rows["aspect"].to_pylist(), sizes))
        kept = [number for number, some in enumerate(squares) if some is not None]
        scores = pa.array([], pa.binary())
        if kept:
            images = np.concatenate([some for some in squares if some is not None])
            probabilities = self._engine.open(job)(images).probabilities
            scores = pa.array([part.tobytes() for part in np.split(probabilities, len(kept))], pa.binary())
        return pa.table({"number": rows["number"].take(kept).cast(pa.int64()), "scores": scores})


def _perturbed(uri: str, aspect: float | None, size: int) -> np.ndarray | None:
    from pneumonia_core.archives.archive import read_image_bytes
    from pneumonia_core.archives.entries import ImageRef
    from pneumonia_core.evaluation.perturbations import perturbed_squares

    try:
        return perturbed_squares(read_image_bytes(ImageRef(uri)), size, aspect)
    except RejectedImage:
        return None


def measure_robustness(
    rows: Sequence[Mapping[str, Any]],
    labels: Sequence[int],
    patients: Sequence[str],
    count: int,
    bundle: Bundle,
    precision: str,
    folder: str,
    bootstrap: int,
) -> dict[str, Any] | None:
    """The robustness table (robustness.robustness) of up to `count` of the scored table rows; None without any."""
    from pneumonia_core.evaluation.perturbations import perturbations, swapped_aspects
    from pneumonia_core.evaluation.robustness import balanced_sample, robustness
    from pneumonia_core.findings import NORMAL

    truth = np.array(labels, np.int64)
    sampled = balanced_sample(truth, count)
    if not len(sampled):
        return None
    nan = float("nan")
    widths, heights = ([row[side] or nan for row in rows] for side in ("width", "height"))
    aspects = swapped_aspects(truth != NORMAL, widths, heights)
    kept, probabilities = score_perturbed(
        [rows[number]["image_uri"] for number in sampled],
        truth[sampled] != NORMAL,
        aspects,
        bundle,
        rows[0]["engine"],
        precision,
        open_location(folder),
    )
    if not len(kept):
        return None
    chosen = sampled[kept]
    return robustness(
        truth[chosen],
        [patients[number] for number in chosen],
        probabilities,
        perturbations(None if aspects is None else aspects[True]),
        bundle.thresholds,
        aspects,
        bootstrap,
    )

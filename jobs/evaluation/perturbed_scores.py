"""Images scored as they are and after each perturbation, by the same engine on the same cluster."""

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
import pyarrow as pa

from jobs.console.output import Progress, say
from jobs.evaluation.options import EvaluateOptions
from jobs.ray_runtime.resources import ANY_NODE, wait_for
from jobs.scoring.execution.computation import ComputationOptions, settle_computation
from jobs.scoring.execution.engine_once import EngineOnce, EngineSpec
from jobs.scoring.execution.placement import threads
from pneumonia_core.archives.archive import read_image_bytes
from pneumonia_core.archives.entries import ImageRef
from pneumonia_core.bundles.bundle import Bundle
from pneumonia_core.datasets.kermany import LabelledImage
from pneumonia_core.errors import RejectedImage
from pneumonia_core.evaluation.document import Robustness
from pneumonia_core.evaluation.perturbations import perturbations, perturbed_squares, swapped_aspects
from pneumonia_core.evaluation.robustness import PerturbedScores, balanced_sample, robustness
from pneumonia_core.evaluation.table_scores import TableScores
from pneumonia_core.findings import NORMAL

# Eleven pictures of each of these images fill three batches of the engine.
IMAGES_PER_BLOCK: Final = 8


def score_perturbed(
    refs: Sequence[ImageRef],
    ill: np.ndarray,
    aspects: Mapping[bool, float] | None,
    bundle: Bundle,
    engine: str,
    precision: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the images that could be perturbed, and their probabilities float32 [N, 1 + P, 3].

    The probabilities are of each image as it is, then after each of `perturbations`. `aspects` are those to
    aim at, by whether an image shows pneumonia (`ill` bool [N]).
    """
    # Ray takes seconds to import: a command that is refused does without it.
    import ray.data

    from jobs.ray_runtime.data_context import data_context
    from jobs.scoring.execution.graph import ship_bundle

    nodes = wait_for(ANY_NODE, math.inf)
    computation = settle_computation(bundle, ComputationOptions(engine, precision), nodes)
    choice, placement = computation.choice, computation.placement
    seats = placement.seated(nodes)
    actor_cpus = min(seat.cpus for seat in seats)
    files = ship_bundle(bundle, choice.engine, choice.precision)
    spec = EngineSpec(files, choice.engine, choice.precision, choice.on_gpu)
    blocks = _blocks(ill, aspects)
    scorer: Any = ScorePerturbed
    with data_context():
        data: Any = ray.data.from_arrow(blocks).map_batches(
            scorer,
            fn_args=(spec, bundle.image_size, list(refs)),
            fn_constructor_args=(threads(actor_cpus),),
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=min(len(seats), len(blocks))),
            num_cpus=actor_cpus,
            num_gpus=placement.actor_gpus or None,
            # As large as the blocks, so that it joins none. With GPUs Ray Data wants a number.
            batch_size=IMAGES_PER_BLOCK,
            batch_format="pyarrow",
        )
    numbers: list[int] = []
    scores: list[np.ndarray] = []
    with Progress(len(refs), "images", "perturbing") as progress:
        for table in data.iter_batches(batch_size=None, batch_format="pyarrow"):
            numbers += table["number"].to_pylist()
            scores += [np.frombuffer(row, np.float32).reshape(-1, 3) for row in table["scores"].to_pylist()]
            progress.advance(table.num_rows)
    if len(numbers) < len(refs):
        say(f"{len(refs) - len(numbers)} images could not be perturbed: left out of the robustness table")
    order = np.argsort(numbers)
    return np.array(numbers, np.int64)[order], np.array(scores, np.float32)[order]


def _blocks(ill: np.ndarray, aspects: Mapping[bool, float] | None) -> list[pa.Table]:
    wanted = [None if aspects is None else aspects[bool(sick)] for sick in ill]
    numbers = pa.array(range(len(ill)), pa.int64())
    table = pa.table({"number": numbers, "aspect": pa.array(wanted, pa.float64())})
    return [table.slice(start, IMAGES_PER_BLOCK) for start in range(0, len(ill), IMAGES_PER_BLOCK)]


class ScorePerturbed:
    """Reads, perturbs and scores some images in one process, as many at a time as it has threads."""

    def __init__(self, threads: int) -> None:
        self._engine = EngineOnce(threads)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="perturb")

    def __call__(self, rows: pa.Table, spec: EngineSpec, image_size: int, refs: list[ImageRef]) -> pa.Table:
        sizes = [image_size] * rows.num_rows
        chosen = [refs[number] for number in rows["number"].to_pylist()]
        squares = list(self._pool.map(_perturbed, chosen, rows["aspect"].to_pylist(), sizes))
        kept = [number for number, some in enumerate(squares) if some is not None]
        scores = pa.array([], pa.binary())
        if kept:
            images = np.concatenate([some for some in squares if some is not None])
            probabilities = self._engine.open(spec)(images).probabilities
            scores = pa.array([part.tobytes() for part in np.split(probabilities, len(kept))], pa.binary())
        return pa.table({"number": rows["number"].take(kept).cast(pa.int64()), "scores": scores})


def _perturbed(ref: ImageRef, aspect: float | None, size: int) -> np.ndarray | None:
    try:
        return perturbed_squares(read_image_bytes(ref), size, aspect)
    except RejectedImage:
        return None


def measure_robustness(
    images: Sequence[LabelledImage],
    scores: TableScores,
    bundle: Bundle,
    options: EvaluateOptions,
) -> Robustness | None:
    """The robustness table of up to `options.robustness` of the scored `images`; None without any."""
    labels = scores.scored.labels
    sampled = balanced_sample(labels, options.robustness)
    if not len(sampled):
        return None
    aspects = swapped_aspects(labels != NORMAL, _or_nan(scores.widths), _or_nan(scores.heights))
    kept, probabilities = score_perturbed(
        [images[scores.positions[number]].ref for number in sampled],
        labels[sampled] != NORMAL,
        aspects,
        bundle,
        scores.engine,
        scores.precision or options.precision,
    )
    if not len(kept):
        return None
    chosen = sampled[kept]
    perturbed = PerturbedScores(
        labels[chosen],
        scores.scored.patients[chosen],
        probabilities,
        perturbations(None if aspects is None else aspects[True]),
        aspects,
    )
    return robustness(perturbed, bundle.thresholds, options.bootstrap)


def _or_nan(sizes: Sequence[int | None]) -> list[float]:
    return [size or math.nan for size in sizes]

"""A benchmark of the connected cluster: a real scoring run, then the ceilings of what it computed with."""

import contextlib
import itertools
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from jobs.benchmark.figures import Figures, NodeRates, table
from jobs.benchmark.place import temporary_place, write_xrays
from jobs.console.command import Result
from jobs.console.output import say, show
from jobs.ray_runtime.resources import ANY_NODE, Node, wait_for
from jobs.ray_runtime.session import ray_session
from jobs.scoring.context import ExecutionOptions
from jobs.scoring.execution.computation import Computation, ComputationOptions, settle_computation
from jobs.scoring.options import ScoreOptions
from jobs.scoring.request import execution_options, make_request
from jobs.scoring.run import score_archives
from pneumonia_core.archives.archive import list_archive
from pneumonia_core.archives.entries import ImageRef
from pneumonia_core.bundles.bundle import Bundle, open_bundle
from pneumonia_core.bundles.engines import BATCH_SIZE
from pneumonia_core.errors import InvalidInput, PneumoniaError
from pneumonia_core.runs.record import RunRecord, RunRequest
from pneumonia_core.runs.run import read_record, run_folder
from pneumonia_core.storage.location import Location

if TYPE_CHECKING:
    from jobs.benchmark.ceilings import Ceilings

# So many images are decoded over and over for the ceiling.
SAMPLE: Final = 64
# How long each ceiling is measured.
MEASURE_S: Final = 4.0
# Enough for several chunks of each actor.
IMAGES_PER_CPU: Final = 256
_WAIT_S: Final = 600.0


@dataclass(frozen=True)
class BenchOptions:
    """The options of `bench`. `archive` may be empty: synthetic X-rays are made."""

    archive: tuple[str, ...]
    model: str
    images: int | None = None
    workdir: str | None = None
    allow_prefix: tuple[str, ...] = ()
    engine: str = "auto"
    precision: str = "auto"
    batch_size: int | None = None
    shape: str = "auto"
    actors: str | None = None
    actor_cpus: float | None = None
    actor_gpus: float | None = None
    decode_cpus: float | None = None
    address: str | None = None
    num_cpus: int | None = None

    def score_options(self, archive: tuple[str, ...], images: int) -> ScoreOptions:
        return ScoreOptions(
            archive,
            self.model,
            engine=self.engine,
            precision=self.precision,
            batch_size=self.batch_size,
            limit=images,
            allow_prefix=self.allow_prefix,
            shape=self.shape,
            actors=self.actors,
            actor_cpus=self.actor_cpus,
            actor_gpus=self.actor_gpus,
            decode_cpus=self.decode_cpus,
        )


def bench(options: BenchOptions, measure_s: float = MEASURE_S) -> Result:
    """Measure the cluster and print the table; the command's result. Nothing is left behind."""
    bundle = open_bundle(options.model)
    with ray_session(options.address, options.num_cpus), _ended_by_sigterm():
        nodes = _nodes()
        images = options.images or IMAGES_PER_CPU * max(1, round(sum(node.cpus for node in nodes)))
        with temporary_place(options.workdir, nodes) as place:
            scoring = options.score_options(options.archive or (_xrays(place, images),), images)
            request = make_request(scoring, bundle)
            execution = execution_options(scoring)
            record = _run(place.child("results"), request, bundle, execution)
            ceilings, computation = _ceilings(execution, bundle, record, measure_s)
    figures = _figures(record, ceilings, computation)
    show(table(figures))
    return {"state": "done", **figures}


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM raises PneumoniaError, so that nothing is left behind. Ray's own handler ends the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise PneumoniaError("stopped as requested; nothing is left behind.")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _nodes() -> list[Node]:
    nodes = wait_for(ANY_NODE, time.monotonic() + _WAIT_S)
    if not nodes:
        raise InvalidInput("the cluster has no node with CPUs. Give the --address of one that has.")
    return nodes


def _xrays(place: Location, images: int) -> str:
    say(f"1/3 making {images:,} synthetic X-rays")
    folder = place.child("xrays")
    write_xrays(folder, images)
    return folder.uri


def _run(results: Location, request: RunRequest, bundle: Bundle, execution: ExecutionOptions) -> RunRecord:
    """The record of a scoring run like any other, into results that are removed at the end."""
    say("2/3 scoring them into a temporary table")
    result = score_archives(results, request, bundle, execution)
    record = read_record(run_folder(results, result.run_id))
    if record.timings is None or not record.counts.scored:
        raise InvalidInput("no image of the archive could be scored. Give another archive.")
    return record


def _ceilings(
    execution: ExecutionOptions, bundle: Bundle, record: RunRecord, measure_s: float
) -> tuple["Ceilings", Computation]:
    """The ceilings with the engine that the run took, on the seats that its actors had."""
    # Ray reads its environment on import, which the session sets first.
    from jobs.benchmark.ceilings import measure_ceilings

    say("3/3 measuring decoding alone and the engine alone on all cores")
    assert record.engine is not None
    assert record.precision is not None
    nodes = _nodes()
    placement = execution.placement
    if placement.actor_gpus is None and record.actors_per_gpu:
        placement = replace(placement, actor_gpus=1 / record.actors_per_gpu)
    asked = ComputationOptions(record.engine, record.precision, execution.shape, placement)
    computation = settle_computation(bundle, asked, nodes)
    sample, batch_size = _sample(record.request()), record.batch_size or BATCH_SIZE
    return measure_ceilings(nodes, computation, bundle, sample, batch_size, measure_s), computation


def _sample(request: RunRequest) -> list[ImageRef]:
    """The first images of the archives, which each node reads for itself."""
    listed = itertools.chain.from_iterable(
        list_archive(archive, Counter(), request.rules) for archive in request.archives
    )
    return [
        ImageRef(image.uri, image.source, image.size_bytes, image.version)
        for image in itertools.islice(listed, SAMPLE)
    ]


def _figures(record: RunRecord, ceilings: "Ceilings", computation: Computation) -> dict[str, Any]:
    assert record.timings is not None
    choice = computation.choice
    nodes = [
        NodeRates(
            node.node_id,
            node.cpus,
            node.gpus,
            ceilings.decode[node.node_id],
            ceilings.engine[node.node_id],
            record.nodes.get(node.node_id, 0),
        )
        for node in ceilings.nodes
    ]
    gpus = sum(node.gpus for node in nodes if node.engine_images_per_s) if choice.on_gpu else 0.0
    return Figures(nodes, record.timings, choice.engine, choice.precision, gpus).as_json()

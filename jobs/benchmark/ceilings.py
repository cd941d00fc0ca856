"""The ceilings of a cluster, measured on every node at once: decoding alone, and the engine alone."""

import contextlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import ray

from jobs.ray_runtime.capabilities import on_node
from jobs.ray_runtime.resources import Node
from jobs.scoring.execution.computation import Computation
from jobs.scoring.execution.engine_once import EngineSpec
from jobs.scoring.execution.graph import ship_bundle
from jobs.scoring.execution.placement import Seat, seats, threads
from jobs.scoring.execution.rates.engine_load import EngineLoad, work_rate
from pneumonia_core.archives.archive import fetch_image
from pneumonia_core.archives.entries import FetchedImage, ImageRef
from pneumonia_core.bundles.bundle import Bundle
from pneumonia_core.errors import InvalidInput, PneumoniaError
from pneumonia_core.scoring.decoding import read_and_decode

# Images that are held in memory have so many bytes at most.
_SAMPLE_BYTES: Final = 128 * 2**20
_READY_S: Final = 600.0


@dataclass(frozen=True)
class Work:
    """What is measured: images that each node reads by itself, and the engine of the run."""

    refs: Sequence[ImageRef]
    image_size: int
    engine: EngineSpec


class Ceiling:
    """One seat, as a Ray actor: what its cores do in a second when they do only one thing."""

    def __init__(self, work: Work, cpus: float) -> None:
        self._work = work
        self._threads = threads(cpus)
        self._sample: list[FetchedImage] = []
        self._engine = EngineLoad(work.engine, self._threads, work.image_size)

    def read(self) -> int:
        """Read the images that can be decoded into memory; how many these are."""
        held = 0
        for ref in self._work.refs:
            image = fetch_image(ref)
            if held < _SAMPLE_BYTES and self._decode(image):
                self._sample.append(image)
                held += len(image.content) if isinstance(image.content, bytes) else 0
        return len(self._sample)

    def _decode(self, image: FetchedImage) -> bool:
        return read_and_decode(image, self._work.image_size).pixels is not None

    def decode_rate(self, seconds: float) -> float:
        """Images per second that all threads decode, from memory; 0 where no image can be decoded."""

        def decoder(number: int) -> Callable[[], int]:
            images = itertools.cycle(self._sample[number:] + self._sample[:number])
            return lambda: int(self._decode(next(images)))

        return work_rate(map(decoder, range(self._threads)), seconds) if self._sample else 0.0

    def open(self) -> None:
        """Open the engine, and compute a batch."""
        self._engine.open()

    def engine_rate(self, seconds: float) -> float:
        """Images per second that the engine computes; batches come from as many threads as chunks do."""
        return self._engine.rate(seconds)


@dataclass(frozen=True)
class Ceilings:
    """Images per second by node: decoding alone on all CPUs, the engine alone where it computes."""

    nodes: Sequence[Node]
    decode: Counter[str]
    engine: Counter[str]


def measure_ceilings(
    nodes: Sequence[Node],
    computation: Computation,
    bundle: Bundle,
    refs: Sequence[ImageRef],
    batch_size: int,
    seconds: float,
) -> Ceilings:
    """The ceilings of these nodes with these images, and with the engine of this computation on its seats.

    All seats are at work at once: nodes that share a machine or a storage share it here, too. Raises
    InvalidInput where no image can be decoded, and PneumoniaError where the cluster fails.
    """
    choice, placement = computation.choice, computation.placement
    files = ship_bundle(bundle, choice.engine, choice.precision)
    spec = EngineSpec(files, choice.engine, choice.precision, choice.on_gpu, batch_size)
    work = Work(refs, bundle.image_size, spec)
    by_cpus = [Seat(node.node_id, cpus) for node in nodes for cpus in seats(node.cpus)]
    decode = _on_seats(by_cpus, 0.0, work, "read", "decode_rate", seconds)
    if not decode.total():
        raise InvalidInput(f"none of the first {len(refs)} images can be decoded. Give another archive.")
    engine = _on_seats(placement.seated(nodes), placement.actor_gpus, work, "open", "engine_rate", seconds)
    return Ceilings(nodes, decode, engine)


def _on_seats(
    places: Sequence[Seat], gpus: float, work: Work, prepare: str, measure: str, seconds: float
) -> Counter[str]:
    """The rates of all seats by node: each is prepared, and when all are, all are measured at once."""
    rates = Counter[str]()
    with _actors(places, gpus, work) as actors, _errors_explained():
        ray.get([getattr(actor, prepare).remote() for actor in actors], timeout=_READY_S)
        measured = ray.get([getattr(actor, measure).remote(seconds) for actor in actors], timeout=_READY_S)
    for place, rate in zip(places, measured, strict=True):
        rates[place.node_id] += rate
    return rates


@contextlib.contextmanager
def _actors(places: Sequence[Seat], gpus: float, work: Work) -> Iterator[list[Any]]:
    """An actor on each seat, gone with the block."""
    # Ray's types do not know the options.
    kind: Any = ray.remote(Ceiling)
    shared = ray.put(work)
    actors = [
        kind.options(
            num_cpus=place.cpus, num_gpus=gpus or None, scheduling_strategy=on_node(place.node_id)
        ).remote(shared, place.cpus)
        for place in places
    ]
    try:
        yield actors
    finally:
        for actor in actors:
            ray.kill(actor)


@contextlib.contextmanager
def _errors_explained() -> Iterator[None]:
    try:
        yield
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, PneumoniaError):
            raise error.cause from None
        raise
    except ray.exceptions.GetTimeoutError as error:
        raise PneumoniaError(
            "the cluster did not measure its ceilings in time: other jobs may have its CPUs. Run the command "
            "again when they have ended."
        ) from error
    except ray.exceptions.RayError as error:
        raise PneumoniaError(
            f"the cluster failed while its ceilings were measured ({type(error).__name__}). Run the command "
            "again."
        ) from error

"""The rates of a bundle's engines on this cluster: of earlier runs, or measured on a node of each kind."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from jobs.console.output import say
from jobs.ray_runtime.capabilities import answers_of_nodes, on_node
from jobs.ray_runtime.resources import Node
from jobs.scoring.execution.engine_once import EngineSpec, ShippedFiles, engine_files
from jobs.scoring.execution.placement import Placement, threads
from pneumonia_core.bundles.bundle import Bundle
from pneumonia_core.bundles.capabilities import Capabilities
from pneumonia_core.bundles.choice import EngineChoice
from pneumonia_core.bundles.engines import GPU_BATCH_SIZE, Engine
from pneumonia_core.bundles.rates.measure import MEASURED_BATCH, Rates, measure_rates, with_measured
from pneumonia_core.bundles.rates.memory import NodeKind, remember_rates, remembered_rates
from pneumonia_core.bundles.rates.workload import Workload, on_gpus, worth_measuring
from pneumonia_core.errors import PneumoniaError
from pneumonia_core.storage.errors import error_text
from pneumonia_core.storage.location import Location

if TYPE_CHECKING:
    from ray import ObjectRef

# A node that has not answered by then is lost, or too busy to tell anything.
_ANSWER_S: Final = 300.0
Shipped = Callable[[str, str], "ObjectRef[ShippedFiles]"]


@dataclass(frozen=True)
class RateSource:
    """Where rates come from: what runs have kept under `results`, and nodes, where that pays for `workload`.

    `ship` gives the bundle's files for an engine and a precision, in Ray's object store. Once the run is
    `stopped`, nothing more is measured, nor is what was not finished remembered.
    """

    results: Location
    ship: Shipped
    workload: Workload
    stopped: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class ClusterRates:
    """Images/s that all nodes together compute, the fastest first, of the choices that each of them can.

    `origin` says whether any was measured for this run.
    """

    rates: Rates
    nodes: int
    origin: Literal["measured", "remembered"]


@dataclass(frozen=True)
class Group:
    """Nodes of a kind, and the actors that belong on all of them."""

    node_ids: tuple[str, ...]
    seats: int


def cluster_rates(
    bundle: Bundle,
    choices: Sequence[EngineChoice],
    source: RateSource,
    nodes: Sequence[Node],
    capabilities: Mapping[str, Capabilities],
    placement: Placement,
) -> ClusterRates | None:
    """The rates of the choices on these nodes; None where the first, likely the fastest, has none yet.

    Kinds of nodes that nobody has measured do not count. What is measured is remembered. A choice that was
    not worth measuring is measured when it is, and beside it one that has a rate.
    """
    groups = by_kind(nodes, capabilities, placement, on_gpus(choices))
    known = remembered_rates(source.results, bundle.model_id)
    worth = worth_measuring(choices, source.workload)
    missing = {kind: [each for each in worth if each not in known.get(kind, {})] for kind in groups}
    asked = {
        kind: (groups[kind].node_ids[0], [*these, *_fastest(known.get(kind, {}), choices)])
        for kind, these in missing.items()
        if these
    }
    # An actor has a share of a GPU, but what is measured has it alone.
    gpus = 1 if placement.kind == "gpu" else 0
    measured = _measure(bundle, source, asked, gpus) if asked else {}
    if measured:
        measured = {kind: with_measured(known.get(kind, {}), rates) for kind, rates in measured.items()}
        known |= measured
        with keeping_rates():
            remember_rates(source.results, bundle.model_id, measured)
    counted = {kind: group for kind, group in groups.items() if known.get(kind)}
    rates = sum_rates(choices, [(known[kind], group.seats) for kind, group in counted.items()])
    if not rates or any(choices[0] not in known[kind] for kind in counted):
        return None
    count = sum(len(group.node_ids) for group in counted.values())
    return ClusterRates(rates, count, "measured" if measured else "remembered")


def _fastest(known: Rates, choices: Sequence[EngineChoice]) -> list[EngineChoice]:
    """The choice with the highest rate, if any has one."""
    computing = [choice for choice in choices if known.get(choice)]
    return [max(computing, key=lambda choice: known[choice])] if computing else []


def sum_rates(
    choices: Sequence[EngineChoice], kinds: Sequence[tuple[Rates, int]]
) -> dict[EngineChoice, float]:
    """Images/s of each choice on all actors, the fastest first; `kinds` are an actor's rates and how many.

    A choice that a kind cannot compute, or that was not measured on it, is left out.
    """
    everywhere = [choice for choice in choices if kinds and all(rates.get(choice) for rates, _ in kinds)]
    sums = {choice: sum(rates[choice] * actors for rates, actors in kinds) for choice in everywhere}
    return dict(sorted(sums.items(), key=lambda item: -item[1]))


def by_kind(
    nodes: Sequence[Node], capabilities: Mapping[str, Capabilities], placement: Placement, on_gpu: bool
) -> dict[NodeKind, Group]:
    """The nodes that get actors, by their kind; `on_gpu` says whether the engine computes on their GPUs."""
    groups: dict[NodeKind, Group] = {}
    for node in nodes:
        seats = placement.seats(node)
        if seats and node.node_id in capabilities:
            here = capabilities[node.node_id]
            card = here.card if on_gpu else ""
            kind = NodeKind(here.processor, node.cpus, node.gpus, threads(seats[0]), card)
            others = groups.get(kind, Group((), 0))
            groups[kind] = Group((*others.node_ids, node.node_id), others.seats + len(seats))
    return groups


def _measure(
    bundle: Bundle,
    source: RateSource,
    asked: Mapping[NodeKind, tuple[str, Sequence[EngineChoice]]],
    gpus: int,
) -> dict[NodeKind, dict[EngineChoice, float]]:
    """The rates of an actor with so many GPUs on one node of each kind, of those that answer.

    `asked` has the id of each one's node, and what to measure there. Where some engine of a kind has
    answered, one that has not counts as one that does not open: it crashed, or it opens for minutes.
    """
    # A command that is refused imports this module, but not Ray, which takes a second.
    import ray

    # A process that has opened all engines is of no further use. What has crashed once crashes again.
    task: Any = ray.remote(num_cpus=0, num_gpus=gpus, max_calls=1, max_retries=0)(_measure_here)
    requests = {
        task.options(scheduling_strategy=on_node(node_id)).remote(
            _specs(together, source.ship), kind.threads, bundle.image_size
        ): (kind, together)
        for kind, (node_id, choices) in asked.items()
        for together in _in_one_process(choices)
    }
    if gpus:
        say("trying engines and precisions on GPUs, which takes up to a minute")
    answers = answers_of_nodes(requests, _ANSWER_S, source.stopped)
    measured: dict[NodeKind, dict[EngineChoice, float]] = {}
    for (kind, _), rates in answers.items():
        measured.setdefault(kind, {}).update(rates)
    for request, (kind, together) in requests.items():
        if (kind, together) not in answers:
            ray.cancel(request, force=True)
            if kind in measured:
                measured[kind].update(dict.fromkeys(together, 0.0))
    if source.stopped():
        return {}
    if len(measured) < len(asked):
        say(f"warning: {len(asked) - len(measured)} of {len(asked)} kinds of nodes could not be measured")
    return measured


def _in_one_process(choices: Sequence[EngineChoice]) -> list[tuple[EngineChoice, ...]]:
    """The choices that are measured by turns. On GPUs each engine has a process of its own.

    There, the frameworks load CUDA libraries of their own, and keep the memory that they have taken.
    """
    if not on_gpus(choices):
        return [tuple(choices)]
    engines = dict.fromkeys(choice.engine for choice in choices)
    return [tuple(choice for choice in choices if choice.engine == engine) for engine in engines]


def _specs(choices: Sequence[EngineChoice], ship: Shipped) -> dict[EngineChoice, EngineSpec]:
    return {choice: spec_of(choice, ship) for choice in choices}


def spec_of(choice: EngineChoice, ship: Shipped) -> EngineSpec:
    """The engine as it is measured, in batches of the size that suffices for that."""
    files = ship(choice.engine, choice.precision)
    batch_size = GPU_BATCH_SIZE if choice.on_gpu else MEASURED_BATCH
    return EngineSpec(files, choice.engine, choice.precision, choice.on_gpu, batch_size)


def _measure_here(
    specs: Mapping[EngineChoice, EngineSpec], threads: int, image_size: int
) -> dict[EngineChoice, float]:
    """On a node: the rates of these engines, each on so many threads."""

    def open_engine(choice: EngineChoice) -> Engine | None:
        try:
            with engine_files(specs[choice], threads) as files:
                return files.open()
        except (ImportError, PneumoniaError):
            # A node may lack the engine's library, or what its precision needs.
            return None

    batch_size = next(iter(specs.values())).batch_size
    return measure_rates(list(specs), open_engine, image_size, batch_size)


@contextlib.contextmanager
def keeping_rates() -> Iterator[None]:
    """Rates are kept in the block; where they cannot be, the run goes on with a warning."""
    try:
        yield
    except (OSError, PneumoniaError) as error:
        say(f"warning: the rates are not kept ({error_text(error)}); the next run measures them again")

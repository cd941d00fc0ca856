"""The rates of a bundle's engines on this cluster: of earlier runs, or measured on a node of each kind."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from jobs.console.output import say
from jobs.ray_runtime.capabilities import answers_of_nodes, on_node
from jobs.ray_runtime.resources import Node
from jobs.scoring.execution.engine_once import EngineSpec, engine_files
from jobs.scoring.execution.placement import Placement, threads
from pneumonia_core.bundles.bundle import Bundle
from pneumonia_core.bundles.capabilities import Capabilities
from pneumonia_core.bundles.choice import EngineChoice
from pneumonia_core.bundles.engines import Engine
from pneumonia_core.bundles.rates.measure import MEASURED_BATCH, Rates, measure_rates, with_measured
from pneumonia_core.bundles.rates.memory import NodeKind, remember_rates, remembered_rates
from pneumonia_core.bundles.rates.workload import Workload, worth_measuring
from pneumonia_core.errors import PneumoniaError
from pneumonia_core.storage.errors import error_text
from pneumonia_core.storage.location import Location

if TYPE_CHECKING:
    from ray import ObjectRef

# A node that has not answered by then is lost, or too busy to tell anything.
_ANSWER_S: Final = 300.0
Shipped = Callable[[str], "ObjectRef[dict[str, bytes]]"]


@dataclass(frozen=True)
class RateSource:
    """Where rates come from: what runs have kept under `results`, and nodes, where that pays for `workload`.

    `ship` gives the bundle's files for an engine, in Ray's object store.
    """

    results: Location
    ship: Shipped
    workload: Workload


@dataclass(frozen=True)
class ClusterRates:
    """Images/s that all nodes together compute, the fastest first, of the choices that each of them can.

    `origin` says whether any was measured for this run.
    """

    rates: Rates
    nodes: int
    origin: Literal["measured", "remembered"]


@dataclass(frozen=True)
class _Group:
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
    groups = _by_kind(nodes, capabilities, placement)
    known = remembered_rates(source.results, bundle.model_id)
    worth = worth_measuring(choices, source.workload)
    missing = {kind: [each for each in worth if each not in known.get(kind, {})] for kind in groups}
    asked = {
        kind: (groups[kind].node_ids[0], [*these, *_fastest(known.get(kind, {}), choices)])
        for kind, these in missing.items()
        if these
    }
    measured = _measure(bundle, source.ship, asked) if asked else {}
    if measured:
        measured = {kind: with_measured(known.get(kind, {}), rates) for kind, rates in measured.items()}
        known |= measured
        _remember(source.results, bundle.model_id, measured)
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


def _by_kind(
    nodes: Sequence[Node], capabilities: Mapping[str, Capabilities], placement: Placement
) -> dict[NodeKind, _Group]:
    """The nodes that get actors, by their kind."""
    groups: dict[NodeKind, _Group] = {}
    for node in nodes:
        seats = placement.seats(node)
        if seats and node.node_id in capabilities:
            processor = capabilities[node.node_id].processor
            kind = NodeKind(processor, node.cpus, node.gpus, threads(seats[0]))
            others = groups.get(kind, _Group((), 0))
            groups[kind] = _Group((*others.node_ids, node.node_id), others.seats + len(seats))
    return groups


def _measure(
    bundle: Bundle, ship: Shipped, asked: Mapping[NodeKind, tuple[str, Sequence[EngineChoice]]]
) -> dict[NodeKind, dict[EngineChoice, float]]:
    """The rates of an actor on one node of each kind, of those that answer.

    `asked` has the id of each one's node, and what to measure there.
    """
    # A command that is refused imports this module, but not Ray, which takes a second.
    import ray

    # A process that has opened all engines is of no further use. What has crashed once crashes again.
    task: Any = ray.remote(num_cpus=0, max_calls=1, max_retries=0)(_measure_here)
    requests = {
        task.options(scheduling_strategy=on_node(node_id)).remote(
            _specs(choices, ship), kind.threads, bundle.image_size
        ): kind
        for kind, (node_id, choices) in asked.items()
    }
    answers = answers_of_nodes(requests, _ANSWER_S)
    for request, kind in requests.items():
        if kind not in answers:
            ray.cancel(request, force=True)
    if len(answers) < len(asked):
        say(f"warning: {len(asked) - len(answers)} of {len(asked)} kinds of nodes could not be measured")
    return answers


def _specs(choices: Sequence[EngineChoice], ship: Shipped) -> dict[EngineChoice, EngineSpec]:
    return {
        choice: EngineSpec(
            ship(choice.engine), choice.engine, choice.precision, choice.on_gpu, MEASURED_BATCH
        )
        for choice in choices
    }


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

    return measure_rates(list(specs), open_engine, image_size)


def _remember(results: Location, model_id: str, measured: Mapping[NodeKind, Rates]) -> None:
    try:
        remember_rates(results, model_id, measured)
    except (OSError, PneumoniaError) as error:
        say(f"warning: the rates are not kept ({error_text(error)}); the next run measures them again")

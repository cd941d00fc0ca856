"""How many actors share a GPU: by what 1, 2 and 3 compute together, measured here or by an earlier run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from jobs.console.output import say
from jobs.ray_runtime.capabilities import answers_of_nodes, on_node
from jobs.ray_runtime.resources import Node
from jobs.scoring.execution.engine_once import EngineSpec
from jobs.scoring.execution.placement import Placement, share_of_gpu
from jobs.scoring.execution.rates.cluster_rates import RateSource, by_kind, keeping_rates, spec_of
from jobs.scoring.execution.rates.engine_load import EngineLoad
from pneumonia_core.bundles.bundle import Bundle
from pneumonia_core.bundles.capabilities import Capabilities
from pneumonia_core.bundles.choice import EngineChoice
from pneumonia_core.bundles.rates.gpu_sharing import (
    MOST_ACTORS,
    fewest_nearly_best,
    measure_sharing,
    sum_of_kinds,
)
from pneumonia_core.bundles.rates.memory import NodeKind, remember_actors, remembered_actors
from pneumonia_core.bundles.rates.workload import why_not_on_gpus

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle

Answer = TypeVar("Answer")

# A batch of 128 takes a slow GPU a tenth of a second.
_TRIAL_S: Final = 0.5
# An engine that is not open by then compiles kernels, or waits for a GPU that others use.
_OPEN_S: Final = 120.0


@dataclass(frozen=True)
class GpuActors:
    """How many actors each GPU has, and in a line why."""

    count: int
    reason: str


def settle_gpu_actors(
    bundle: Bundle,
    choice: EngineChoice,
    nodes: Sequence[Node],
    capabilities: Mapping[str, Capabilities],
    placement: Placement,
    source: RateSource | None,
) -> GpuActors:
    """The fewest actors on each GPU with which all nodes together compute nearly the most images/s.

    `placement` is the one of a single actor on each. What is measured is remembered; kinds of nodes that
    nobody has measured do not count.
    """
    groups = by_kind(nodes, capabilities, placement, choice.on_gpu)
    fed = {kind: min(MOST_ACTORS, placement.fed_on_gpu(Node(kind.cpus, kind.gpus))) for kind in groups}
    most = min(fed.values(), default=1)
    if source is None or not groups:
        return _one("nothing was measured")
    if most == 1:
        return _one("the CPUs of a node feed no second one")
    known = {
        kind: rates[choice]
        for kind, rates in remembered_actors(source.results, bundle.model_id).items()
        if kind in groups and choice in rates
    }
    measured: Mapping[NodeKind, tuple[float, ...]] = {}
    why_not = why_not_on_gpus(source.workload)
    if not why_not:
        asked = {kind: (groups[kind].node_ids[0], fed[kind]) for kind in groups if kind not in known}
        measured = _measure(bundle, choice, source, asked) if asked else {}
    known |= measured
    rates = sum_of_kinds([(known[kind], groups[kind].seats) for kind in known])[:most]
    if not rates:
        return _one(f"nothing was measured ({why_not or 'no node could be measured'})")
    count = fewest_nearly_best(rates)
    actors = "1 actor" if count == 1 else f"{count} actors"
    return GpuActors(count, f"{actors} on each GPU: {_compared(rates, bool(measured))}")


def _one(why: str) -> GpuActors:
    return GpuActors(1, f"1 actor on each GPU: {why}")


def _compared(rates: Sequence[float], measured: bool) -> str:
    """What all GPUs compute together, with one actor on each, with two, and so on."""
    when = "measured now" if measured else "as an earlier run measured"
    if len(rates) == 1:
        return f"{rates[0]:,.1f} images/s on all GPUs, {when}; no second one opened beside it"
    others = "".join(f", with {number} {rate:,.1f}" for number, rate in enumerate(rates[1:], start=2))
    return f"with 1 all GPUs compute {rates[0]:,.1f} images/s{others}, {when}"


def _measure(
    bundle: Bundle, choice: EngineChoice, source: RateSource, asked: Mapping[NodeKind, tuple[str, int]]
) -> dict[NodeKind, tuple[float, ...]]:
    """The images/s of 1, 2, … actors on a GPU of one node of each kind, where a first one computes.

    `asked` has the id of each one's node, and the most actors to try.
    """
    spec = spec_of(choice, source.ship)
    say("trying whether several actors on a GPU compute more than one")
    found = {
        kind: _rates_on(node_id, spec, kind.threads, bundle.image_size, most, source.stopped)
        for kind, (node_id, most) in asked.items()
    }
    if source.stopped():
        return {}
    measured = {kind: rates for kind, rates in found.items() if rates}
    shared = {kind: {choice: rates} for kind, rates in measured.items()}
    with keeping_rates():
        remember_actors(source.results, bundle.model_id, shared)
    return measured


def _rates_on(
    node_id: str,
    spec: EngineSpec,
    threads: int,
    image_size: int,
    most: int,
    stopped: Callable[[], bool],
) -> tuple[float, ...]:
    """What 1, 2, … actors compute at the same time on one GPU of this node."""
    # A command that is refused imports this module, but not Ray, which takes a second.
    import ray

    kind: Any = ray.remote(num_cpus=0, num_gpus=share_of_gpu(most))(EngineLoad)
    actors: list[ActorHandle[EngineLoad]] = []

    def answers(requests: "Sequence[ObjectRef[Answer]]") -> list[Answer]:
        """Those of the actors that have not failed, as where the GPU's memory has no place for one."""
        numbered = {request: number for number, request in enumerate(requests)}
        return list(answers_of_nodes(numbered, _OPEN_S, stopped).values())

    def open_actor() -> bool:
        here = kind.options(scheduling_strategy=on_node(node_id))
        actors.append(here.remote(spec, threads, image_size))
        return len(answers([actors[-1].open.remote()])) == 1

    def rate() -> float:
        rates: list[float] = answers([each.rate.remote(_TRIAL_S) for each in actors])
        return sum(rates) if len(rates) == len(actors) else 0.0

    try:
        return measure_sharing(open_actor, rate, most)
    finally:
        for actor in actors:
            ray.kill(actor)

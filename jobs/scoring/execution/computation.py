"""What a run computes with, settled once for all of its rows: engine, precision, shape and placement."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from jobs.console.output import say
from jobs.console.remedies import REMEDIES
from jobs.ray_runtime.capabilities import blind_nodes, node_capabilities, unseen_gpus
from jobs.ray_runtime.resources import Node
from jobs.scoring.execution.placement import Placement, PlacementOptions, Shape, choose_placement
from jobs.scoring.execution.rates.cluster_rates import ClusterRates, RateSource, cluster_rates
from jobs.scoring.execution.rates.gpu_actors import GpuActors, settle_gpu_actors
from pneumonia_core.bundles.bundle import Bundle
from pneumonia_core.bundles.capabilities import Capabilities
from pneumonia_core.bundles.choice import EngineChoice, gpu_engine, possible_choices
from pneumonia_core.bundles.engines import FLOAT16_GRAPH, GPU_ENGINES, ONNX_ENGINE, passed_precisions
from pneumonia_core.bundles.rates.workload import soonest_done, why_unmeasured
from pneumonia_core.errors import InvalidInput, Remedy


@dataclass(frozen=True)
class ComputationOptions:
    """What the user asked for; of a resumed run, the engine and the precision that it has recorded."""

    engine: str = "auto"
    precision: str = "auto"
    shape: str = "auto"
    placement: PlacementOptions = field(default_factory=PlacementOptions)


@dataclass(frozen=True)
class Computation:
    """The engine and the precision of every row, and the actors and tasks that compute them.

    `reason` says in a line why these were taken; it is empty where they were named. `rates` are those of the
    cluster, where they decided. `gpu_actors` are the actors on each GPU, where nobody named their number.
    """

    choice: EngineChoice
    placement: Placement
    reason: str = ""
    rates: ClusterRates | None = None
    gpu_actors: GpuActors | None = None


def settle_computation(
    bundle: Bundle,
    options: ComputationOptions,
    nodes: Sequence[Node],
    rate_source: RateSource | None = None,
) -> Computation:
    """The computation of a run on these nodes, settled from what every one of them can compute.

    Of several engines and precisions that passed parity, the one is taken with which all nodes together have
    scored all images soonest, by the rates of `rate_source`; without these, the likely fastest. Shape
    `auto` is `gpu` where the engine computes on GPUs. GPUs that Ray counts and the engine does not see are
    reported once. Raises InvalidInput where the options ask for what the nodes or the bundle do not have.
    """
    on_gpus = gpu_engine(options.engine) if options.shape != "cpu" else None
    look_for_gpus = on_gpus is not None
    asked_engine = on_gpus or "tensorflow"
    if options.engine == "auto" and passed_precisions(bundle.reports.get(ONNX_ENGINE, {})):
        asked_engine = "auto"
    capabilities = node_capabilities(nodes, look_for_gpus, asked_engine)
    blind = blind_nodes(nodes, capabilities) if look_for_gpus else frozenset()
    seeing = [replace(node, gpus=0.0) if node.node_id in blind else node for node in nodes]
    gpu = look_for_gpus and any(node.gpus for node in seeing)
    if on_gpus is not None and blind:
        library = GPU_ENGINES[on_gpus]
        _tell_blind(unseen_gpus(blind, len(nodes), library.name), library.remedy, gpu, options.shape)
    choices = possible_choices(bundle, options.engine, options.precision, list(capabilities.values()), gpu)
    kind: Shape = "gpu" if options.shape == "gpu" or choices[0].on_gpu else "cpu"
    asked = options.placement
    placement = replace(choose_placement(seeing, kind, asked), blind=blind)
    rates = None
    if len(choices) > 1 and rate_source is not None:
        rates = cluster_rates(bundle, choices, rate_source, seeing, capabilities, placement)
    choice = choices[0]
    if rates is not None and rate_source is not None:
        choice = soonest_done(rates.rates, rate_source.workload)
    gpu_actors = None
    if kind == "gpu" and asked.actors is None and asked.actor_gpus is None:
        gpu_actors = settle_gpu_actors(bundle, choice, seeing, capabilities, placement, rate_source)
        shared = replace(asked, actor_gpus=1 / gpu_actors.count)
        placement = replace(choose_placement(seeing, kind, shared), blind=blind)
    reason = ""
    if "auto" in (options.engine, options.precision):
        missed = _missed_parity(bundle, options.engine, options.precision)
        absent = absent_float16(bundle, choice, list(capabilities.values()))
        reason = f"{_taken(choice)}: {_why(choices, choice, rates, rate_source)}{missed}{absent}"
    return Computation(choice, placement, reason, rates, gpu_actors)


def _taken(choice: EngineChoice) -> str:
    return f"{choice.engine} computes in {choice.precision}"


def _why(
    choices: Sequence[EngineChoice],
    choice: EngineChoice,
    rates: ClusterRates | None,
    rate_source: RateSource | None,
) -> str:
    """Why the choice was taken of these choices."""
    where = "on GPUs, " if choice.on_gpu else ""
    if len(choices) == 1:
        return (
            "on GPUs"
            if choice.on_gpu
            else "nothing else that was asked for passed parity and runs on every node"
        )
    if rates is None:
        why_none = why_unmeasured(choices, rate_source.workload) if rate_source is not None else ""
        return f"{where}mostly the fastest; nothing was measured{why_none and f' ({why_none})'}"
    when = "measured now" if rates.origin == "measured" else "as an earlier run measured"
    nodes = "1 node" if rates.nodes == 1 else f"{rates.nodes} nodes"
    sooner = "" if choice == next(iter(rates.rates)) else ", and it starts sooner"
    others = "".join(f"; {_name(each)} {rate:,.1f}" for each, rate in rates.rates.items() if each != choice)
    return f"{where}{rates.rates[choice]:,.1f} images/s on {nodes}, {when}{sooner}{others}"


def _missed_parity(bundle: Bundle, engine: str, precision: str) -> str:
    failed = ", ".join(_failed(bundle, engine, precision))
    return failed and f"; not taken, for they missed parity: {failed}"


def absent_float16(bundle: Bundle, choice: EngineChoice, machines: Sequence[Capabilities]) -> str:
    """What would let TensorFlow compute in float16 on these machines' GPUs, where all of them multiply it."""
    computing = [machine for machine in machines if machine.gpus]
    if (
        choice != EngineChoice("tensorflow", "float32", on_gpu=True)
        or "float16" in bundle.reports["tensorflow"]
        or not all(machine.can_compute("float16", on_gpu=True) for machine in computing)
    ):
        return ""
    return f"; `pneumonia export --engine {FLOAT16_GRAPH}` adds float16 to the bundle"


def _failed(bundle: Bundle, engine: str, precision: str) -> list[str]:
    """What `auto` might have taken if it had passed parity."""
    return [
        _name(EngineChoice(name, each, on_gpu=False))
        for name, reports in bundle.reports.items()
        for each, report in reports.items()
        if engine in ("auto", name) and precision in ("auto", each) and not report.parity_passed
    ]


def _name(choice: EngineChoice) -> str:
    """The engine and, unless that is said by its name, the precision."""
    return (
        choice.engine if choice.engine.endswith(choice.precision) else f"{choice.engine} {choice.precision}"
    )


def _tell_blind(text: str, remedy: Remedy, others_see: bool, shape: str) -> None:
    """Say which GPUs are not used. Raises InvalidInput where `shape` asks for GPUs and none is seen."""
    if others_see:
        say(f"warning: {text} These GPUs are not used. {REMEDIES[remedy]}")
    elif shape == "gpu":
        raise InvalidInput(text, remedy)
    else:
        say(f"warning: {text} The run computes on CPUs. {REMEDIES[remedy]}")

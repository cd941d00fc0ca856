"""What a run computes with, settled once for all of its rows: engine, precision, shape and placement."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from jobs.console.output import say
from jobs.console.remedies import REMEDIES
from jobs.ray_runtime.capabilities import blind_nodes, node_capabilities, unseen_gpus
from jobs.ray_runtime.resources import Node
from jobs.scoring.execution.placement import Placement, PlacementOptions, Shape, choose_placement
from pneumonia_core.bundles.bundle import Bundle
from pneumonia_core.bundles.choice import EngineChoice, settle_engine
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
    """The engine and the precision of every row, and the actors and tasks that compute them."""

    choice: EngineChoice
    placement: Placement


def settle_computation(bundle: Bundle, options: ComputationOptions, nodes: Sequence[Node]) -> Computation:
    """The computation of a run on these nodes, settled from what every one of them can compute.

    Shape `auto` is `gpu` where the engine computes on GPUs. GPUs that Ray counts and TensorFlow does not see
    are reported once. Raises InvalidInput where the options ask for what the nodes or the bundle do not have.
    """
    look_for_gpus = options.shape != "cpu" and options.engine in ("auto", "tensorflow")
    capabilities = node_capabilities(nodes, look_for_gpus)
    blind = blind_nodes(nodes, capabilities) if look_for_gpus else frozenset()
    seeing = [replace(node, gpus=0.0) if node.node_id in blind else node for node in nodes]
    gpu = look_for_gpus and any(node.gpus for node in seeing)
    if blind:
        _tell_blind(blind, len(nodes), gpu, options.shape)
    choice = settle_engine(bundle, options.engine, options.precision, list(capabilities.values()), gpu)
    kind: Shape = "gpu" if options.shape == "gpu" or choice.on_gpu else "cpu"
    return Computation(choice, replace(choose_placement(seeing, kind, options.placement), blind=blind))


def _tell_blind(blind: frozenset[str], nodes: int, others_see: bool, shape: str) -> None:
    """Say which GPUs are not used. Raises InvalidInput where `shape` asks for GPUs and none is seen."""
    text = unseen_gpus(blind, nodes)
    if others_see:
        say(f"warning: {text} These GPUs are not used. {REMEDIES[Remedy.INSTALL_GPU]}")
    elif shape == "gpu":
        raise InvalidInput(text, Remedy.INSTALL_GPU)
    else:
        say(f"warning: {text} The run computes on CPUs. {REMEDIES[Remedy.INSTALL_GPU]}")

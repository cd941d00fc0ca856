"""Which of a bundle's engines may compute, and in which precision: the same for all machines of a run."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pneumonia_core.bundles.bundle import Bundle
from pneumonia_core.bundles.capabilities import Capabilities, measure_capabilities
from pneumonia_core.bundles.engines import (
    BATCH_SIZE,
    FLOAT16_GRAPH,
    GPU_ENGINES,
    INT8,
    INT8_ENGINE,
    ONNX_ENGINE,
    Engine,
    passed_precisions,
)
from pneumonia_core.bundles.exported import open_exported
from pneumonia_core.errors import InvalidInput, PneumoniaError, Remedy

# The engine that `auto` takes on GPUs.
_ON_GPUS: Final = "tensorflow"
# On CPUs, the likely fastest first. In int8 OpenVINO was 3.5 to 4 times as fast as in float32; ONNX Runtime
# took 1.25 times as long. TensorFlow was never faster than OpenVINO, and loads for 5 s and 500 MB.
_BY_SPEED: Final = (INT8_ENGINE, "openvino", ONNX_ENGINE, "tensorflow")


@dataclass(frozen=True)
class EngineChoice:
    """What all scores of a run are computed with. `on_gpu` says whether the engine computes on GPUs."""

    engine: str
    precision: str
    on_gpu: bool


def check_engine(bundle: Bundle, name: str) -> None:
    """Raise InvalidInput where the bundle lacks the engine of this name, or has none for `auto`."""
    if name != "auto" and name not in bundle.reports:
        present = ", ".join(sorted(bundle.reports))
        raise InvalidInput(f"the bundle {bundle.path} has no engine {name!r}; it has {present}.")
    if name == "auto" and not any(map(passed_precisions, bundle.reports.values())):
        raise InvalidInput(
            f"no engine of the bundle {bundle.path} agreed with its float32 model when it was written.",
            Remedy.NAME_ENGINE,
        )


def possible_choices(
    bundle: Bundle, engine: str, precision: str, machines: Sequence[Capabilities], gpu: bool = False
) -> tuple[EngineChoice, ...]:
    """What every one of these machines can compute the same scores with; at least one.

    The likely fastest comes first, which may be wrong for these machines. `auto` takes what passed parity.
    With `gpu` the engines for GPUs compute, on those machines that have some: TensorFlow, if it passed or is
    named, and ONNX Runtime, in what they passed, likely the fastest in float16. Raises InvalidInput
    where the bundle lacks the engine, where the engine lacks the precision, and where the machines do.
    """
    check_engine(bundle, engine)
    with_gpus = [machine for machine in machines if machine.gpus]
    on_gpus = _engines_on_gpus(bundle, engine, with_gpus) if gpu else ()
    computing = with_gpus if on_gpus else machines
    if not all(_has(machine, engine) for machine in computing):
        raise InvalidInput(f"{engine} is not installed on every node.", Remedy.INSTALL_ONNX)
    if on_gpus:
        return _gpu_choices(bundle, on_gpus, precision, computing)
    if precision != "auto":
        return _choices_in(bundle, engine, precision, machines)
    names = bundle.reports if engine == "auto" else [engine]
    found = [
        (name, each)
        for name in names
        for each in passed_precisions(bundle.reports[name])
        if all(_has(machine, name) and machine.can_compute(each, on_gpu=False) for machine in machines)
        and (machines or (each == "float32" and name != ONNX_ENGINE))
    ]
    if found:
        return _likely_fastest_first(bundle, found, machines)
    if engine == "auto":
        raise InvalidInput(
            f"no engine of the bundle {bundle.path} agreed with its float32 model in a precision that every "
            "node computes in.",
            Remedy.NAME_ENGINE,
        )
    return (EngineChoice(engine, _precision_all_the_same(bundle, engine, machines), on_gpu=False),)


def settle_engine(
    bundle: Bundle, engine: str, precision: str, machines: Sequence[Capabilities], gpu: bool = False
) -> EngineChoice:
    """The first of the possible choices: what to take where nothing was measured on these machines."""
    return possible_choices(bundle, engine, precision, machines, gpu)[0]


def _likely_fastest_first(
    bundle: Bundle, found: Sequence[tuple[str, str]], machines: Sequence[Capabilities]
) -> tuple[EngineChoice, ...]:
    """These engines and precisions by what they have cost elsewhere.

    The rates in the bundle, perhaps of a busy machine, decide only where that does not.
    """
    # Without tiles bfloat16 was measured at 0.7 and at 2 times the speed of float32, whatever the flags said.
    # Then the exact one comes first. Where some machines have tiles, no order is known.
    tiles = {machine.bfloat16_tiles for machine in machines}
    later = "float32" if tiles == {True} else "bfloat16" if tiles == {False} else None

    def cost(choice: EngineChoice) -> tuple[int, bool, float]:
        # Version 0.1.0 measured an engine in one precision.
        report = bundle.reports[choice.engine].get(choice.precision)
        rate = report.images_per_s if report else 0.0
        return _BY_SPEED.index(choice.engine), choice.precision == later, -rate

    return tuple(sorted((EngineChoice(*each, on_gpu=False) for each in found), key=cost))


def _choices_in(
    bundle: Bundle, engine: str, precision: str, machines: Sequence[Capabilities]
) -> tuple[EngineChoice, ...]:
    """The choices in the precision that is named. Of an engine that is named too, parity is not asked."""
    if engine != "auto":
        _check_offered(bundle, engine, precision)
        names = [engine]
    else:
        names = [
            name
            for name, each in bundle.reports.items()
            if precision in passed_precisions(each) and all(_has(machine, name) for machine in machines)
        ]
        if not names:
            raise InvalidInput(
                f"no engine of the bundle {bundle.path} agreed with its float32 model in {precision} when it "
                "was written.",
                Remedy.NAME_ENGINE,
            )
    _check_machines(names[0], precision, machines, on_gpu=False)
    return _likely_fastest_first(bundle, [(name, precision) for name in names], machines)


def gpu_engine(engine: str) -> str | None:
    """The engine that computes on GPUs where this one, or `auto`, is asked for; None where none does."""
    name = _ON_GPUS if engine == "auto" else engine
    return name if name in GPU_ENGINES else None


def _engines_on_gpus(bundle: Bundle, engine: str, machines: Sequence[Capabilities]) -> tuple[str, ...]:
    """The engines that compute on the GPUs of all these machines; for `auto`, of those that passed parity."""
    if engine != "auto":
        return (engine,) if engine in GPU_ENGINES else ()
    return tuple(
        name
        for name in GPU_ENGINES
        if passed_precisions(bundle.reports.get(name, {}))
        and all(name in machine.gpu_engines and _has(machine, name) for machine in machines)
    )


def _gpu_choices(
    bundle: Bundle, engines: Sequence[str], precision: str, machines: Sequence[Capabilities]
) -> tuple[EngineChoice, ...]:
    """The choices on these machines, which all have GPUs.

    Nobody has compared the engines on GPUs yet: the order is that of GPU_ENGINES. Where TensorFlow sees the
    GPUs, whether ONNX Runtime does shows when it opens.
    """
    name = engines[0]
    first = EngineChoice(name, _gpu_precision(bundle, name, precision, machines), on_gpu=True)
    passed = [
        EngineChoice(other, each, on_gpu=True)
        for other in engines
        for each in passed_precisions(bundle.reports.get(other, {}))
        if machines and precision in ("auto", each)
        if all(machine.can_compute(each, on_gpu=True) for machine in machines)
    ]
    return first, *(choice for choice in passed if choice != first)


def _gpu_precision(bundle: Bundle, engine: str, precision: str, machines: Sequence[Capabilities]) -> str:
    """The precision of these machines, which all have GPUs."""
    if precision == "auto":
        everywhere = machines and all(machine.can_compute("float16", on_gpu=True) for machine in machines)
        passed = "float16" in passed_precisions(bundle.reports[engine])
        return "float16" if everywhere and passed else "float32"
    _check_offered(bundle, engine, precision)
    _check_machines(engine, precision, machines, on_gpu=True)
    return precision


def _precision_all_the_same(bundle: Bundle, engine: str, machines: Sequence[Capabilities]) -> str:
    """The precision of an engine that is named although it passed parity in none that the machines have."""
    if not _is_quantized(bundle, engine):
        return "float32"
    if not machines or not all(machine.int8 for machine in machines):
        raise InvalidInput(
            f"{engine} needs processors that multiply int8 (VNNI or AMX), which not every node has.",
            Remedy.OTHER_ENGINE,
        )
    return INT8


def _check_offered(bundle: Bundle, engine: str, precision: str) -> None:
    if precision == "float16" and engine in GPU_ENGINES and not _offers(bundle, engine, precision):
        raise InvalidInput(
            f"the run computes in float16 with {engine}, which the bundle {bundle.path} does not hold.",
            Remedy.START_OVER,
        )
    if not _offers(bundle, engine, precision):
        raise InvalidInput(f"{engine} does not compute in {precision}.", Remedy.OTHER_ENGINE)


def _check_machines(engine: str, precision: str, machines: Sequence[Capabilities], on_gpu: bool) -> None:
    if not any(machine.can_compute(precision, on_gpu) for machine in machines):
        raise InvalidInput(
            f"the run computes in {precision} with {engine}, which no node of this cluster can do. "
            "Finish it on a cluster like the one that it was started on.",
            Remedy.START_OVER,
        )


def _has(machine: Capabilities, engine: str) -> bool:
    """Whether the engine's library is on the machine: that of one engine may not be."""
    return engine != ONNX_ENGINE or machine.onnxruntime


def _is_quantized(bundle: Bundle, engine: str) -> bool:
    return INT8 in bundle.reports[engine]


def _offers(bundle: Bundle, engine: str, precision: str) -> bool:
    """Whether the engine computes in this precision on some machine: a quantised one in int8 alone."""
    if precision == "float16":
        return precision in bundle.reports[engine]
    return (precision == INT8) == _is_quantized(bundle, engine)


def check_can_add(bundle: Bundle, engine: str) -> None:
    """Raise InvalidInput where the bundle has this engine, or the FLOAT16_GRAPH, already."""
    if engine in bundle.engines or (engine == FLOAT16_GRAPH and _offers(bundle, "tensorflow", "float16")):
        raise InvalidInput(
            f"the bundle {bundle.path} has the engine {engine} already. Give the one that it was made from."
        )


def load_engine(
    bundle: Bundle,
    name: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    gpu: bool = False,
    batch_size: int = BATCH_SIZE,
) -> Engine:
    """The bundle's engine of this name, ready to score in exactly this precision, in batches of this size.

    `auto` is settled for this machine alone. `threads` bounds the CPU threads. With `gpu` the engine computes
    on this machine's GPU where it can. Raises InvalidInput when the bundle lacks the engine, PneumoniaError
    when this machine cannot compute in the precision or has no GPU that the engine sees.
    """
    check_engine(bundle, name)
    asked = gpu_engine(name) if gpu else None
    machine = measure_capabilities(asked is not None, asked or _ON_GPUS)
    if not _has(machine, name):
        raise PneumoniaError(f"{name} is not installed on this node.", Remedy.INSTALL_ONNX)
    on_gpu = asked == name
    if "auto" in (name, precision):
        choice = settle_engine(bundle, name, precision, [machine], gpu)
        name, precision, on_gpu = choice.engine, choice.precision, choice.on_gpu
    if on_gpu and not machine.gpus:
        library = GPU_ENGINES[name]
        raise PneumoniaError(f"{library.name} sees no GPU on this node.", library.remedy)
    engine = None
    if _offers(bundle, name, precision) and machine.can_compute(precision, on_gpu):
        count = threads or os.cpu_count() or 1
        engine = open_exported(bundle.path, name, precision, bundle.image_size, count, on_gpu, batch_size)
    if engine is None or engine.precision != precision:
        raise PneumoniaError(
            f"this node cannot compute in {precision} with {name}, as the other nodes of the run do. "
            "Leave it out of the cluster.",
            Remedy.RUN_AGAIN,
        )
    return engine

"""Which of a bundle's engines computes, and in which precision: chosen once, for all machines of a run."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from pneumonia_core.bundles.bundle import Bundle
from pneumonia_core.bundles.capabilities import Capabilities, measure_capabilities
from pneumonia_core.bundles.engines import BATCH_SIZE, INT8, ONNX_ENGINE, Engine
from pneumonia_core.bundles.exported import open_exported
from pneumonia_core.errors import InvalidInput, PneumoniaError, Remedy


@dataclass(frozen=True)
class EngineChoice:
    """What all scores of a run are computed with. `on_gpu` says whether the engine computes on GPUs."""

    engine: str
    precision: str
    on_gpu: bool


def choose_engine(
    bundle: Bundle, name: str = "auto", gpu: bool = False, int8: bool = True, onnxruntime: bool = True
) -> str:
    """The name of the engine that `name` selects in this bundle.

    `auto` selects among the engines that passed parity: with `gpu` TensorFlow, the only one that computes on
    a GPU, else the fastest. Without `int8` it leaves out engines that compute in it, which not every machine
    can; without `onnxruntime` the engine of that name, which not every machine has. Raises InvalidInput when
    the bundle lacks the engine or none passed.
    """
    if name != "auto":
        if name not in bundle.engines:
            present = ", ".join(sorted(bundle.engines))
            raise InvalidInput(f"the bundle {bundle.path} has no engine {name!r}; it has {present}.")
        return name
    passed = {
        n: report
        for n, report in bundle.engines.items()
        if report.parity_passed and (int8 or report.precision != INT8) and (onnxruntime or n != ONNX_ENGINE)
    }
    if not passed:
        raise InvalidInput(
            f"no engine of the bundle {bundle.path} agreed with its float32 model when it was written.",
            Remedy.NAME_ENGINE,
        )
    if gpu and "tensorflow" in passed:
        return "tensorflow"
    return max(passed, key=lambda n: passed[n].images_per_s)


def settle_engine(
    bundle: Bundle, engine: str, precision: str, machines: Sequence[Capabilities], gpu: bool = False
) -> EngineChoice:
    """The engine and the precision in which every one of these machines computes the same scores.

    With `gpu` the engine may use the GPUs of those that have some. Precision `auto` is float16 on GPUs. On
    CPUs it is bfloat16 where every machine has it and the engine passed parity in it, else float32; a
    quantised engine computes in int8 alone. Raises InvalidInput where the bundle lacks the engine, where the
    engine lacks the precision, and where the machines do.
    """
    int8 = bool(machines) and all(machine.int8 for machine in machines)
    onnxruntime = bool(machines) and all(machine.onnxruntime for machine in machines)
    name = choose_engine(bundle, engine, gpu, int8 and precision in ("auto", INT8), onnxruntime)
    if name == ONNX_ENGINE and machines and not onnxruntime:
        raise InvalidInput(f"{name} is not installed on every node.", Remedy.INSTALL_ONNX)
    on_gpu = gpu and name == "tensorflow"
    if on_gpu:
        machines = [machine for machine in machines if machine.gpus]
    if precision == "auto":
        return EngineChoice(name, _fastest_precision(bundle, name, machines, on_gpu), on_gpu)
    if not _offers(bundle, name, precision):
        raise InvalidInput(f"{name} does not compute in {precision}.", Remedy.OTHER_ENGINE)
    if not any(machine.can_compute(precision, on_gpu) for machine in machines):
        raise InvalidInput(
            f"the run computes in {precision} with {name}, which no node of this cluster can do. "
            "Finish it on a cluster like the one that it was started on.",
            Remedy.START_OVER,
        )
    return EngineChoice(name, precision, on_gpu)


def _fastest_precision(bundle: Bundle, engine: str, machines: Sequence[Capabilities], on_gpu: bool) -> str:
    report = bundle.engines[engine]
    if report.precision == INT8:
        if not all(machine.int8 for machine in machines):
            raise InvalidInput(
                f"{engine} needs processors that multiply int8 (VNNI or AMX), which not every node has.",
                Remedy.OTHER_ENGINE,
            )
        return INT8
    parity = report.precision if report.parity_passed else "float32"
    preferred = "float16" if on_gpu else parity
    everywhere = all(machine.can_compute(preferred, on_gpu) for machine in machines)
    return preferred if machines and everywhere else "float32"


def _offers(bundle: Bundle, engine: str, precision: str) -> bool:
    """Whether the engine computes in this precision on some machine: a quantised one in int8 alone."""
    return (precision == INT8) == (bundle.engines[engine].precision == INT8)


def check_can_add(bundle: Bundle, engine: str) -> None:
    """Raise InvalidInput where the bundle has this engine already."""
    if engine in bundle.engines:
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

    `auto` is settled for this machine alone. `threads` bounds the CPU threads. With `gpu` TensorFlow computes
    on this machine's GPU. Raises InvalidInput when the bundle lacks the engine, PneumoniaError when this
    machine cannot compute in the precision or has no GPU that TensorFlow sees.
    """
    here = measure_capabilities(look_for_gpus=False)
    int8 = precision in ("auto", INT8) and here.int8
    name = choose_engine(bundle, name, gpu, int8, here.onnxruntime)
    if name == ONNX_ENGINE and not here.onnxruntime:
        raise PneumoniaError(f"{name} is not installed on this node.", Remedy.INSTALL_ONNX)
    on_gpu = gpu and name == "tensorflow"
    machine = measure_capabilities(look_for_gpus=on_gpu)
    if on_gpu and not machine.gpus:
        raise PneumoniaError("TensorFlow sees no GPU on this node.", Remedy.INSTALL_GPU)
    if precision == "auto":
        precision = settle_engine(bundle, name, precision, [machine], gpu).precision
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

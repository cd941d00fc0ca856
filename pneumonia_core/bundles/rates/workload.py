"""What a run has to score, and so which engines are worth measuring for it, and which has it done soonest."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pneumonia_core.bundles.choice import EngineChoice
from pneumonia_core.bundles.engines import INT8_ENGINE
from pneumonia_core.bundles.rates.measure import Rates

# OpenVINO's engines are open and measured in a second or two, in which hundreds of images are scored.
_FEW_IMAGES: Final = 256
# Opening and measuring TensorFlow takes as long as scoring a thousand images. It may gain some per cent.
_MANY_IMAGES: Final = 20_000
_SHORT_DEADLINE_S: Final = 600.0
_QUICK: Final = frozenset({"openvino", INT8_ENGINE})
# From a new process to the first batch, on a machine with nothing else to do. The others take about _START_S.
_TENSORFLOW_START_S: Final = 5.5
_START_S: Final = 0.4


@dataclass(frozen=True)
class Workload:
    """The images to score among those listed so far, whether all are, and the time until a deadline."""

    images: int
    listing_complete: bool = True
    left_s: float = math.inf

    @property
    def expected_images(self) -> float:
        """How many images there will be; infinity where nobody knows."""
        return self.images if self.listing_complete else math.inf


def worth_measuring(choices: Sequence[EngineChoice], workload: Workload) -> tuple[EngineChoice, ...]:
    """Those of the choices whose measurement may pay; none, where fewer than two could be compared.

    Of few images nothing is measured, nor shortly before a deadline. What takes long to open is measured for
    many images only, unless nothing else can be taken. So is all that computes on GPUs: they score thousands
    of images while an engine opens there.
    """
    if _why_nothing(workload) or (on_gpus(choices) and why_not_on_gpus(workload)):
        return ()
    quick = [choice for choice in choices if choice.engine in _QUICK]
    asked = quick if quick and workload.images < _MANY_IMAGES else choices
    return tuple(asked) if len(asked) > 1 else ()


def on_gpus(choices: Sequence[EngineChoice]) -> bool:
    """Whether these compute on GPUs."""
    return any(choice.on_gpu for choice in choices)


def why_unmeasured(choices: Sequence[EngineChoice], workload: Workload) -> str:
    """Why none of the choices is worth measuring, or known although it was, in words."""
    if why := _why_nothing(workload):
        return why
    if worth_measuring(choices, workload):
        return "no node could be measured"
    return "the others take longer to try than they would save"


def why_not_on_gpus(workload: Workload) -> str:
    """Why measuring on GPUs, where opening an engine takes long, would not pay; empty where it would."""
    return _why_nothing(workload) or (
        "trying takes longer than it would save" if workload.images < _MANY_IMAGES else ""
    )


def _why_nothing(workload: Workload) -> str:
    if workload.expected_images <= _FEW_IMAGES:
        return "few images"
    return "the deadline is near" if workload.left_s <= _SHORT_DEADLINE_S else ""


def soonest_done(rates: Rates, workload: Workload) -> EngineChoice:
    """The choice that has scored all images first at these rates of the cluster, its start included."""

    def seconds(choice: EngineChoice) -> tuple[float, float]:
        start_s = _TENSORFLOW_START_S if choice.engine == "tensorflow" else _START_S
        # Where the images are without number, the rate alone counts.
        return start_s + workload.expected_images / rates[choice], -rates[choice]

    return min(rates, key=seconds)

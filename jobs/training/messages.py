"""What workers tell the driver: typed messages, and the mailbox actor that holds them."""

import traceback
from dataclasses import dataclass
from typing import Any, Self, cast

import numpy as np
import ray
from ray.actor import ActorHandle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pneumonia_core.errors import InvalidInput, PneumoniaError, Remedy
from pneumonia_core.training.checkpoint import InitialState
from pneumonia_core.training.history import EpochFigures, ValidationFigures


@dataclass(frozen=True)
class Started:
    """The workers start, or start again, after `epoch` finished epochs and `step` steps of the next one."""

    initial: InitialState
    epoch: int
    step: int


@dataclass(frozen=True)
class PrecisionsTimed:
    """Seconds of a few images' gradients in each precision that was tried, {precision: seconds}."""

    seconds: dict[str, float]


@dataclass(frozen=True)
class NotCompiled:
    """XLA does not compile for the GPUs, for this reason: the steps run operation by operation."""

    reason: str


@dataclass(frozen=True)
class HeadFitted:
    """A head was fitted to the features of so many images."""

    images: int
    figures: ValidationFigures


@dataclass(frozen=True)
class InputsShown:
    """Images uint8 [N, H, W] of the first batch, augmented as the step sees them."""

    images: np.ndarray


@dataclass(frozen=True)
class StepDone:
    """A step of an epoch, both counted from 1, and its loss."""

    epoch: int
    step: int
    loss: float


@dataclass(frozen=True)
class EpochDone:
    """An epoch's figures, and the probabilities float32 [N, 3] for all validation images."""

    figures: EpochFigures
    probabilities: np.ndarray


Message = Started | PrecisionsTimed | NotCompiled | HeadFitted | InputsShown | StepDone | EpochDone


@dataclass(frozen=True)
class PermanentFailure:
    """An error that a new attempt would meet again. `trace` is its traceback where it was unexpected."""

    text: str
    remedy: Remedy | None = None
    is_invalid_input: bool = False
    trace: str | None = None

    @classmethod
    def of(cls, error: Exception) -> Self:
        """The failure for an error that is being handled."""
        if isinstance(error, PneumoniaError):
            return cls(error.text, error.remedy, isinstance(error, InvalidInput))
        return cls(f"{type(error).__name__}: {error}", trace=traceback.format_exc())


class TrainingEvents:
    """The mailbox actor: it keeps messages until the driver takes them, and the first permanent failure.

    Workers started later see the failure and exit, so it does not use up the retries.
    """

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._failure: PermanentFailure | None = None

    def post(self, message: Message) -> None:
        self._messages.append(message)

    def take(self) -> list[Message]:
        messages, self._messages = self._messages, []
        return messages

    def report_permanent_failure(self, failure: PermanentFailure) -> None:
        """Keep the first failure; later ones are its consequences."""
        self._failure = self._failure or failure

    def failure(self) -> PermanentFailure | None:
        return self._failure


@dataclass(frozen=True)
class Mailbox:
    """A typed handle of a TrainingEvents actor, for the driver and for workers."""

    actor: "ActorHandle[Any]"

    def post(self, message: Message) -> None:
        """Send a message without waiting for its arrival."""
        self.actor.post.remote(message)

    def take(self) -> list[Message]:
        """The messages since the last call."""
        return list(ray.get(self.actor.take.remote()))

    def report_permanent_failure(self, failure: PermanentFailure) -> None:
        """Report a failure, and wait until the actor has it."""
        ray.get(self.actor.report_permanent_failure.remote(failure))

    def failure(self) -> PermanentFailure | None:
        return cast("PermanentFailure | None", ray.get(self.actor.failure.remote()))


def open_mailbox() -> Mailbox:
    """The mailbox of a new actor on the driver's node, where it lives exactly as long as the driver."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(TrainingEvents).options(num_cpus=0, scheduling_strategy=here).remote()
    return Mailbox(cast("ActorHandle[Any]", actor))

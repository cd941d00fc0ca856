"""The notice board of a training: workers pin notes, the driver reads them."""

from typing import Any


class TrainingEvents:
    """A Ray actor on the driver's node, so that it lives as long as the driver and outlives any worker.

    A failure that would come again stays pinned: workers that start after it read it and go home instead
    of failing alike until the retries are used up.
    """

    def __init__(self) -> None:
        self._notes: list[dict[str, Any]] = []
        self._failure: dict[str, Any] | None = None

    def post(self, note: dict[str, Any]) -> None:
        self._notes.append(note)

    def take(self) -> list[dict[str, Any]]:
        """The notes since the last call."""
        notes, self._notes = self._notes, []
        return notes

    def pin_failure(self, failure: dict[str, Any]) -> None:
        """Keep the first failure; later ones are its consequences."""
        self._failure = self._failure or failure

    def failure(self) -> dict[str, Any] | None:
        return self._failure


def open_events() -> Any:
    """A handle of a new board."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(TrainingEvents).options(num_cpus=0, scheduling_strategy=here).remote()

"""Where the next actor of the pool goes: a free seat of the placement, on whichever node has one now."""

from collections import Counter
from typing import Any
from uuid import uuid4

from jobs.ray_runtime.resources import present_nodes
from jobs.scoring.execution.placement import Placement


class SeatPicker:
    """Gives each new actor of the pool its resources and its node; Ray Data calls it in the driver.

    Each seat is given once. Ray starts an actor that dies again by itself: on its node, or elsewhere where
    that is gone. `names` are those of all actors, by which they are found.
    """

    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        self._given: Counter[str] = Counter()
        self.names: list[str] = []

    def __call__(self) -> dict[str, Any]:
        self.names.append(f"score-{uuid4().hex}")
        return {"name": self.names[-1], **self._place()}

    def _place(self) -> dict[str, Any]:
        # Ray reads its environment on import, which the session sets first.
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        gpus = {"num_gpus": self._placement.actor_gpus} if self._placement.actor_gpus else {}
        seats = Counter[str]()
        for seat in self._placement.seated(present_nodes()):
            seats[seat.node_id] += 1
            if seats[seat.node_id] > self._given[seat.node_id]:
                self._given[seat.node_id] += 1
                here = NodeAffinitySchedulingStrategy(seat.node_id, soft=True)
                return {"num_cpus": seat.cpus, "scheduling_strategy": here, **gpus}
        # The cluster is to grow: the actor waits for a node, of whatever size.
        return {"num_cpus": self.smallest(), "scheduling_strategy": "SPREAD", **gpus}

    def smallest(self) -> float:
        """The CPUs of the smallest seat on the present nodes, at most 1: what an actor can have anywhere."""
        cpus = [seat.cpus for seat in self._placement.seated(present_nodes())]
        return min([1.0, *cpus])

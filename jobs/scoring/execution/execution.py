"""One Ray Data execution, from a run's first chunk to its last, as its driver sees it."""

import contextlib
import math
import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Final

import ray
from ray.data._internal.execution.streaming_executor import StreamingExecutor

from jobs.ray_runtime.growth import NodeRequest, may_grow
from jobs.ray_runtime.resources import Node
from jobs.scoring.execution.actors import ChunkJob
from jobs.scoring.execution.graph import scoring_graph
from jobs.scoring.execution.outcomes import Outcome, outcomes
from jobs.scoring.execution.placement import CHUNKS_PER_ACTOR, Placement
from jobs.scoring.execution.queue import Orders, QueueClient, QueueReport, WorkItem
from jobs.scoring.execution.seats import SeatPicker

# Workers that are still busy then have chunks that others have done.
_LEAVE_AFTER_S: Final = 2.0
_KILLED_AFTER_S: Final = 10.0


class Execution:
    """Chunks go in by `put`, what comes of them comes out of `arrived`; in between, `exchange` with workers.

    It ends with its block, and its actors and its queue with it. `hash_key` is that of the nodes, as
    `check_hash_keys` gives it.
    """

    def __init__(
        self,
        chunk_queue: QueueClient,
        job: ChunkJob,
        placement: Placement,
        chunk_rows: int,
        hash_key: str | None = None,
    ) -> None:
        self.hash_key = hash_key
        self._queue = chunk_queue
        chunk_queue.hold_engine(job.engine)
        self._arrived: queue.SimpleQueue[Outcome | BaseException | None] = queue.SimpleQueue()
        self._placement = placement
        self._seats = SeatPicker(placement)
        self._growth = NodeRequest()
        self._graph = scoring_graph(self._queue, job, self._seats, placement, chunk_rows)
        # In shape `gpu` a chunk is decoded on any node, in shape `cpu` where an actor is.
        self.decodes_anywhere = placement.kind == "gpu"
        self._thread = threading.Thread(target=self._receive, name="outcomes", daemon=True)

    def __enter__(self) -> "Execution":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._growth.withdraw()
        with contextlib.suppress(ray.exceptions.RayError):
            self._queue.close(_LEAVE_AFTER_S)
        self._thread.join(_LEAVE_AFTER_S)
        if self._thread.is_alive():
            # An actor that waits for its lost node, or has a chunk that another one has done.
            self._shut_down()
            self._kill_actors()
            self._thread.join(_KILLED_AFTER_S)
        self._queue.kill()

    def _shut_down(self) -> None:
        """End Ray Data's scheduling: it would start other actors, and request nodes for them."""
        for thread in threading.enumerate():
            if isinstance(thread, StreamingExecutor) and thread.name.endswith(self._graph.get_dataset_id()):
                thread.shutdown(force=False)

    def _kill_actors(self) -> None:
        for name in self._seats.names:
            # An actor that has ended has no name.
            with contextlib.suppress(ValueError):
                ray.kill(ray.get_actor(name))

    def put(self, position: int, items: Sequence[WorkItem]) -> None:
        """Give these chunks out; `position` counts all items given out before."""
        if items:
            self._queue.put(position, items)

    def exchange(self, orders: Orders) -> QueueReport:
        """Give the workers these orders; what they have begun."""
        return self._queue.exchange(orders)

    def seated(self, nodes: Sequence[Node]) -> frozenset[str]:
        """Those of these nodes on which actors belong."""
        return frozenset(seat.node_id for seat in self._placement.seated(nodes))

    def ask_for_nodes(self, present: Sequence[Node], actors: int, unbegun: int) -> None:
        """Ask the autoscaler for what so many unbegun chunks need, when so many actors have all seats.

        Ray Data asks by itself, at most every ten seconds, and then for twice the nodes that there are.
        """
        seats = self._placement.seated(present)
        room = math.inf if self._placement.most is None else self._placement.most - len(seats)
        # A size that the present nodes have, for the autoscaler may add no larger ones.
        cpus = min((seat.cpus for seat in seats), default=1.0)
        count = int(min(unbegun // CHUNKS_PER_ACTOR, room)) if actors >= len(seats) else 0
        self._growth.ask(count if count > 0 and may_grow() else 0, cpus, self._placement.actor_gpus)

    def arrived(self, timeout_s: float) -> Iterator[Outcome]:
        """What has come of chunks; waits for the first one, at most `timeout_s`.

        Raises what ended the execution before its driver did: RayError, or the error of a bug.
        """
        with contextlib.suppress(queue.Empty):
            yield self._checked(self._arrived.get(timeout=timeout_s))
            while True:
                yield self._checked(self._arrived.get_nowait())

    def _checked(self, arrived: Outcome | BaseException | None) -> Outcome:
        if isinstance(arrived, BaseException):
            raise arrived
        if arrived is None:
            raise RuntimeError("the pipeline ended by itself")
        return arrived

    def _receive(self) -> None:
        end: BaseException | None = None
        try:
            # Nothing is fetched ahead: a receipt would wait for the next one.
            batches: Any = self._graph.iter_batches(
                batch_size=None, batch_format="pyarrow", prefetch_batches=0
            )
            for table in batches:
                for outcome in outcomes(table):
                    self._arrived.put(outcome)
        except BaseException as error:  # noqa: BLE001 - handed to the thread that takes the outcomes
            end = error
        self._arrived.put(end)

"""The queue of a run's chunks: an actor beside the driver, from which the pipeline's source takes them."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal
from uuid import uuid4

from pneumonia_core.imaging.study_key import NO_HASH_KEY, hash_key_digest
from pneumonia_core.results.clock import MAX_CLOCK_ERROR
from pneumonia_core.runs.inventory import ChunkRef

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle

    from jobs.scoring.execution.engine_once import EngineSpec

# More than one at a time, because each call of the source costs a millisecond.
ITEMS_AT_ONCE: Final = 64
_WAIT_S: Final = 5.0


@dataclass(frozen=True)
class WorkItem:
    """A chunk that is given out. It goes elsewhere than to the nodes to `avoid`.

    A `copy` is given out while another worker has the same chunk.
    """

    ref: ChunkRef
    avoid: tuple[str, ...] = ()
    copy: bool = False


Permission = Literal["go", "elsewhere", "stop", "wrong clock"]


@dataclass(frozen=True)
class Orders:
    """What the driver tells the workers, at each of its calls.

    `keep_from` is the position of the oldest item that may still be needed. `hash_key` is the digest of the
    key that the nodes have for the `study_key` of the rows, None where the driver does not know it.
    """

    stopping: bool = False
    left_out: frozenset[str] = frozenset()
    keep_from: int = 0
    hash_key: str | None = None


@dataclass(frozen=True)
class QueueReport:
    """What the workers have reported to the queue since the driver's last call.

    `instance` changes where the queue's process died: what it held is lost. `begun` are chunks and the
    nodes that work on them, `turned_away` chunks that are to go elsewhere. `actors` are the nodes of all
    actors that have started, by the actors' ids. `hash_key` is that of the orders, or else of the first
    worker; `of_another_key` are nodes with another.
    """

    instance: str
    begun: tuple[tuple[int, str], ...]
    turned_away: tuple[int, ...] = ()
    actors: dict[str, str] = field(default_factory=dict)
    hash_key: str | None = None
    of_another_key: frozenset[str] = frozenset()


class ChunkQueue:
    """An async actor. Items are numbered from 0: a source that starts over gets the same ones again."""

    def __init__(self) -> None:
        # Not an argument: an actor whose constructor holds an object cannot be restarted when that is lost.
        self._engine: Sequence[ObjectRef[EngineSpec]] = ()
        self._instance = uuid4().hex
        self._items: list[WorkItem] = []
        # The number of the first of `_items`.
        self._first = 0
        self._closed = False
        self._changed = asyncio.Event()
        self._orders = Orders()
        self._begun: list[tuple[int, str]] = []
        self._turned_away: list[int] = []
        self._actors: dict[str, str] = {}
        self._hash_key: str | None = None
        self._of_another_key: set[str] = set()

    async def put(self, position: int, items: Sequence[WorkItem]) -> None:
        """Add items, of which the first has this number. A repeated call changes nothing."""
        if not self._items and self._first < position:
            # This process has replaced one that died.
            self._first = position
        known = self._first + len(self._items) - position
        self._items.extend(items[known:])
        self._wake()

    async def close(self) -> None:
        """No item will follow: the source ends."""
        self._closed = True
        self._wake()

    async def take(self, position: int) -> list[WorkItem | None] | None:
        """The next items from this number on; None for one that is no longer needed.

        The list is empty where there is none yet. Returns None when the queue is closed.
        """
        if position < self._first:
            return [None] * min(self._first - position, ITEMS_AT_ONCE)
        if position >= self._first + len(self._items):
            if self._closed:
                return None
            changed = self._changed
            try:
                await asyncio.wait_for(changed.wait(), _WAIT_S)
            except TimeoutError:
                return []
        start = position - self._first
        return list(self._items[start : start + ITEMS_AT_ONCE])

    async def begin(
        self, chunk: int, node: str, avoid: Sequence[str], scores: bool, clock_s: float, hash_key: str
    ) -> Permission:
        """Whether a worker on this node may begin the chunk now. `scores` says that the worker is an actor.

        `clock_s` is the time on its node, which dates the rows. `hash_key` is the digest of the node's key: a
        node that joins late may have another than those that were asked when the run began. A task that only
        decodes is not reported: Ray itself repeats it where its node is lost.
        """
        if self._orders.stopping:
            return "stop"
        if abs(clock_s - time.time()) > MAX_CLOCK_ERROR.total_seconds():
            return "wrong clock"
        if node in avoid or node in self._orders.left_out or not self._is_of_the_run(node, hash_key):
            self._turned_away.append(chunk)
            return "elsewhere"
        if scores:
            self._begun.append((chunk, node))
        return "go"

    def _is_of_the_run(self, node: str, hash_key: str) -> bool:
        """Whether a node has the key of the run; the first one has."""
        if self._hash_key is None:
            self._hash_key = hash_key
        if hash_key == self._hash_key:
            return True
        self._of_another_key.add(node)
        return False

    async def hold_engine(self, engine: "Sequence[ObjectRef[EngineSpec]]") -> None:
        """Give this engine to each actor that starts; in a list, so that Ray does not fetch it here."""
        self._engine = engine

    async def register(self, actor_id: str, node: str) -> "Sequence[ObjectRef[EngineSpec]]":
        """An actor has started, or started again, on this node. Returns the engine that it will need.

        A queue that has started again does not know the engine.
        """
        self._actors[actor_id] = node
        return self._engine

    async def exchange(self, orders: Orders) -> QueueReport:
        """Take the driver's orders; tell what has happened since its last call."""
        self._orders = orders
        self._hash_key = orders.hash_key if orders.hash_key is not None else self._hash_key
        if (unneeded := orders.keep_from - self._first) > 0:
            del self._items[:unneeded]
            self._first = orders.keep_from
        report = QueueReport(
            self._instance,
            tuple(self._begun),
            tuple(self._turned_away),
            dict(self._actors),
            self._hash_key,
            frozenset(self._of_another_key),
        )
        self._begun, self._turned_away = [], []
        return report

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class QueueClient:
    """The queue as the driver and the workers call it. Each call waits for its answer."""

    def __init__(self, handle: "ActorHandle[Any]") -> None:
        # Ray's types do not know an actor's methods.
        self._handle: Any = handle

    def hold_engine(self, engine: "EngineSpec") -> None:
        """Let the actors have this engine, which they open before their first chunk."""
        # As in `start_queue`.
        import ray

        self._handle.hold_engine.remote([ray.put(engine)])

    def put(self, position: int, items: Sequence[WorkItem]) -> None:
        _get(self._handle.put.remote(position, items))

    def close(self, timeout_s: float) -> None:
        _get(self._handle.close.remote(), timeout_s)

    def take(self, position: int) -> list[WorkItem | None] | None:
        items: list[WorkItem | None] | None = _get(self._handle.take.remote(position))
        return items

    def begin(self, chunk: int, node: str, avoid: Sequence[str], scores: bool) -> Permission:
        hash_key = hash_key_digest() or NO_HASH_KEY
        asked = self._handle.begin.remote(chunk, node, avoid, scores, time.time(), hash_key)
        permission: Permission = _get(asked)
        return permission

    def register(self, actor_id: str, node: str) -> "list[EngineSpec]":
        engine: list[EngineSpec] = _get(_get(self._handle.register.remote(actor_id, node)))
        return engine

    def exchange(self, orders: Orders) -> QueueReport:
        report: QueueReport = _get(self._handle.exchange.remote(orders))
        return report

    def kill(self) -> None:
        # As in `start_queue`.
        import ray

        ray.kill(self._handle)


def _get(ref: Any, timeout_s: float | None = None) -> Any:  # noqa: ANN401 - Ray's types do not know an actor
    # As in `start_queue`.
    import ray

    return ray.get(ref, timeout=timeout_s)


def start_queue() -> QueueClient:
    """Start the queue on the driver's node. Ray starts it again where its process dies."""
    # Ray reads its environment on import, which the session sets first.
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    queue: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(ChunkQueue)
    # Each worker may wait in a call of its own.
    handle = queue.options(scheduling_strategy=here, max_concurrency=10_000).remote()
    return QueueClient(handle)

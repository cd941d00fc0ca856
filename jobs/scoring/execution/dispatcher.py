"""Which chunk is given out next, and what becomes of one that fails, or that is lost with its node."""

import math
import random
import statistics
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from jobs.scoring.execution.outcomes import ChunkFailure, Receipt
from jobs.scoring.execution.queue import WorkItem
from pneumonia_core.runs.inventory import ChunkRef

# A chunk is tried five times in all.
RETRIES: Final = 4
# So many chunks in a row fail on a node before it is left out.
FAILURES_OF_A_NODE: Final = 3
# The pause before a chunk is tried again on the node on which it failed; it doubles with each failure.
PAUSE_S: Final = 1.0
# At the end a chunk is given out again when it takes this many times as long as most, and a moment more. Each
# further copy comes after twice the time of the one before: copies, too, are lost with nodes.
SLOW: Final = 2.0
SLOW_S: Final = 5.0
# At the end, when nobody has begun a chunk for so long, those that are not begun were lost on the way.
UNBEGUN_S: Final = 15.0
_RECENT: Final = 101


@dataclass
class _Given:
    """A chunk that is out: given to the queue, and perhaps begun by a worker. Times in seconds."""

    ref: ChunkRef
    position: int
    given_at: float
    node: str | None = None
    begun_at: float | None = None
    copies: int = 1
    copied_at: float | None = None

    def is_late(self, limit_s: float, others_begun_at: float, now: float) -> bool:
        """Whether it is out for so much longer than others that it should be given out again."""
        if self.copied_at is not None:
            return now - self.copied_at > max(UNBEGUN_S, limit_s) * 2 ** (self.copies - 2)
        if self.begun_at is None:
            # While workers begin others, or start, it may wait for them.
            return now - max(self.given_at, others_begun_at) > max(UNBEGUN_S, limit_s)
        return now - self.begun_at > limit_s


@dataclass
class _NodeRecord:
    """The chunks that have failed on a node one after the other, and what all nodes had done before."""

    done_elsewhere: int
    streak: set[int] = field(default_factory=set)
    last_error: str = ""


class Dispatcher:
    """The driver's account of the chunks of one execution.

    It keeps those that wait and those that are out, and nothing of a chunk that is done. Times are seconds of
    time.monotonic.
    """

    def __init__(self) -> None:
        self._waiting: deque[Iterator[ChunkRef]] = deque()
        # Chunks that failed or came back, by their numbers, and from when on each may be tried again.
        self._again: dict[int, tuple[ChunkRef, float]] = {}
        self._out: dict[int, _Given] = {}
        self._failures: dict[int, list[ChunkFailure]] = {}
        self._nodes: dict[str, _NodeRecord] = {}
        self._done: Counter[str] = Counter()
        self._seconds: deque[float] = deque(maxlen=_RECENT)
        self._position = 0
        # When a worker last began a chunk.
        self._begun_at = -math.inf
        # Until when there was no worker.
        self._could_not_begin_until = -math.inf
        self.left_out: frozenset[str] = frozenset()
        # Whether chunks have failed since one was done.
        self.failing = False

    @property
    def all_done(self) -> bool:
        """Whether no chunk waits and none is out."""
        return not (self._waiting or self._again or self._out)

    @property
    def out(self) -> int:
        """How many chunks are out."""
        return len(self._out)

    @property
    def begun_count(self) -> int:
        """How many of the chunks that are out a worker has begun."""
        return sum(given.begun_at is not None for given in self._out.values())

    @property
    def keep_from(self) -> int:
        """The position of the oldest item that may still be needed."""
        return min((given.position for given in self._out.values()), default=self._position)

    def add(self, refs: Iterable[ChunkRef]) -> None:
        """These chunks are to be scored. They are not read before they are given out."""
        self._waiting.append(iter(refs))

    def take(self, room: int, now: float, nodes: Collection[str]) -> tuple[int, list[WorkItem]]:
        """The position of the next items and the items themselves, until `room` chunks are out.

        Chunks that failed come first. `nodes` are the living ones.
        """
        position = self._position
        items = []
        while len(self._out) < room and (ref := self._next(now)) is not None:
            items.append(self._give(ref, now, nodes))
        return position, items

    def _next(self, now: float) -> ChunkRef | None:
        ready = [chunk for chunk, (_, at) in self._again.items() if at <= now]
        if ready:
            # The one that failed most: where all fail, it soon has failed often enough.
            most = max(ready, key=lambda chunk: len(self._failures.get(chunk, ())))
            return self._again.pop(most)[0]
        while self._waiting:
            ref = next(self._waiting[0], None)
            if ref is not None:
                return ref
            self._waiting.popleft()
        return None

    def _give(self, ref: ChunkRef, now: float, nodes: Collection[str]) -> WorkItem:
        failed = {failure.node for failure in self._failures.get(ref.chunk, ())}
        # Where it has failed on every node, any of them may try again.
        avoid = failed if set(nodes) - failed - self.left_out else set()
        self._out[ref.chunk] = _Given(ref, self._position, now)
        self._position += 1
        return WorkItem(ref, tuple(sorted(avoid)))

    def begun(self, chunk: int, node: str, now: float) -> None:
        """A worker on this node has begun the chunk."""
        self._begun_at = now
        if (given := self._out.get(chunk)) is not None and given.begun_at is None:
            given.node, given.begun_at = node, now

    def done(self, receipt: Receipt) -> bool:
        """The chunk's part is written. Returns whether this is the chunk's first receipt."""
        self.failing = False
        self._done[receipt.node] += 1
        self._seconds.append(receipt.seconds)
        if receipt.node not in self.left_out:
            self._nodes.pop(receipt.node, None)
        for node in self._nodes:
            self._judge(node)
        self._failures.pop(receipt.chunk, None)
        # One that a lost node had done may wait to be done again.
        waited = self._again.pop(receipt.chunk, None) is not None
        return self._out.pop(receipt.chunk, None) is not None or waited

    def failed(self, failure: ChunkFailure, now: float, nodes: Collection[str]) -> bool:
        """A chunk has no part. Returns whether it is tried again."""
        given = self._out.get(failure.chunk)
        if given is None:
            # Another worker has done it.
            return True
        failures = self._failures.setdefault(failure.chunk, [])
        failures.append(failure)
        self.failing = True
        record = self._nodes.setdefault(failure.node, _NodeRecord(self._done_elsewhere(failure.node)))
        record.streak.add(failure.chunk)
        record.last_error = failure.error
        self._judge(failure.node)
        if len(failures) > RETRIES or not set(nodes) - self.left_out:
            return False
        elsewhere = set(nodes) - self.left_out - {each.node for each in failures}
        pause_s = 0.0 if elsewhere else PAUSE_S * 2 ** (len(failures) - 1) * random.uniform(0.5, 1.5)
        self._return(given.ref, now + pause_s)
        return True

    def _judge(self, node: str) -> None:
        """Leave a node out on which chunks have failed while others scored them."""
        record = self._nodes[node]
        if len(record.streak) >= FAILURES_OF_A_NODE and self._done_elsewhere(node) > record.done_elsewhere:
            self.leave_out(node)

    def leave_out(self, node: str) -> None:
        """No chunk is to be begun on this node."""
        self.left_out |= {node}

    def last_error(self, node: str) -> str:
        """Why a chunk failed last on a node that is left out."""
        return self._nodes[node].last_error

    def _done_elsewhere(self, node: str) -> int:
        return self._done.total() - self._done[node]

    def returned(self, chunk: int, now: float) -> None:
        """A worker did not begin the chunk, because its node is to be avoided."""
        given = self._out.get(chunk)
        if given is None:
            return
        if given.copies > 1:
            # Another worker still has it.
            given.copies -= 1
        else:
            self._return(given.ref, now)

    def dropped(self, chunk: int) -> None:
        """A worker did not begin the chunk, because the run is stopping."""
        self._out.pop(chunk, None)

    def _return(self, ref: ChunkRef, at: float) -> None:
        self._out.pop(ref.chunk, None)
        self._again[ref.chunk] = (ref, at)

    def lose_queue(self, now: float) -> None:
        """The queue's process died: what was in it is given out again."""
        for given in list(self._out.values()):
            if given.begun_at is None:
                self._return(given.ref, now)

    def lose_nodes(self, nodes: Collection[str], now: float) -> None:
        """Only these nodes live: chunks that others had begun are given out again."""
        for given in list(self._out.values()):
            if given.node is not None and given.node not in nodes:
                self._return(given.ref, now)

    def forget_lost(self, nodes: Collection[str], now: float) -> None:
        """Where the run is stopping, do not wait for chunks of lost nodes, or that nobody has begun."""
        for chunk, given in list(self._out.items()):
            lost = given.node is not None and given.node not in nodes
            if lost or (given.node is None and now - given.given_at > UNBEGUN_S):
                del self._out[chunk]

    def second_copies(self, actors: Mapping[str, int], now: float) -> tuple[int, list[WorkItem]]:
        """At the end, when actors are idle: the chunks that take the longest, to be scored by a second one.

        `actors` are the nodes' numbers of living actors.
        """
        position = self._position
        if not any(actors.values()):
            # Nobody can begin a chunk yet: it is not late because workers start slowly.
            self._could_not_begin_until = now
        if self._waiting or self._again:
            return position, []
        could_begin_at = max(self._begun_at, self._could_not_begin_until)
        limit_s = SLOW * statistics.median(self._seconds or [UNBEGUN_S]) + SLOW_S
        late = [given for given in self._out.values() if given.is_late(limit_s, could_begin_at, now)]
        late.sort(key=lambda given: given.copied_at or given.given_at)
        items = []
        for given in late[: self._idle(actors)]:
            given.copies += 1
            given.copied_at = now
            self._position += 1
            items.append(WorkItem(given.ref, (given.node,) if given.node else (), copy=True))
        return position, items

    def _idle(self, actors: Mapping[str, int]) -> int:
        """How many of these actors have no chunk. A node whose actors hang has no part in that of others."""
        begun = Counter(given.node for given in self._out.values())
        return sum(max(count - begun[node], 0) for node, count in actors.items())

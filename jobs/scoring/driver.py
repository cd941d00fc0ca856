"""The driver's side of an execution: feeds it, follows its workers, and counts what comes back."""

import contextlib
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from jobs.console.imports import importing
from jobs.console.output import Progress, say
from jobs.ray_runtime.resources import Node, notice_new_nodes, present_nodes
from jobs.scoring.context import ScoringContext, begin_ray, start_ray
from jobs.scoring.execution.dispatcher import Dispatcher
from jobs.scoring.execution.outcomes import ChunkFailure, NotBegun, Outcome, Receipt
from jobs.scoring.execution.placement import CHUNKS_PER_ACTOR
from jobs.scoring.execution.queue import Orders
from pneumonia_core.errors import PneumoniaError, Remedy
from pneumonia_core.imaging.study_key import HASH_KEY_VARIABLE
from pneumonia_core.results.table_view import TableView
from pneumonia_core.runs.inventory import ChunkRef
from pneumonia_core.runs.outcome.timings import RunTimings, WorkerSeconds
from pneumonia_core.runs.run import Run

if TYPE_CHECKING:
    from jobs.scoring.execution.execution import Execution

NO_PROGRESS_S: Final = 600.0
_NO_PROGRESS_IMAGES: Final = 256
_NODES_EVERY_S: Final = 2.0
# So long a node that has joined may take until its actors have started.
_ACTORS_START_S: Final = 120.0
# Chunks that are out for each actor: what it has, and as many for those that join.
_OUT_PER_ACTOR: Final = 6
_LEAST_OUT: Final = 32


class Driver:
    """Gives chunks out until each has its part. Its execution starts with the first chunk.

    `all_done` says whether every chunk that was added has its part.
    """

    def __init__(self, context: ScoringContext, run: Run, view: TableView, progress: Progress) -> None:
        self._context = context
        self._run = run
        self._view = view
        self._progress = progress
        self._dispatcher = Dispatcher()
        self._stack = contextlib.ExitStack()
        self._execution: Execution | None = None
        self._instance = ""
        # The living nodes, those that have an actor or could have a decoding task, and each one's actors.
        self._nodes: frozenset[str] = frozenset()
        self._workers: frozenset[str] = frozenset()
        self._actors: Counter[str] = Counter()
        self._nodes_at = 0.0
        self._joined_at = 0.0
        # The nodes that have seats, whether their actors have started or not.
        self._seated: frozenset[str] = frozenset()
        self._progress_at = time.monotonic()
        # The nodes that the user knows to be left out.
        self._told: frozenset[str] = frozenset()
        self._rejected = 0
        self._images_by_node = Counter(run.record.nodes)
        self._images = 0
        self._seconds = WorkerSeconds()

    def __enter__(self) -> "Driver":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def images_by_node(self) -> Mapping[str, int]:
        """How many images each node has scored or rejected, for earlier commands of the run too."""
        return dict(self._images_by_node)

    def timings(self) -> RunTimings:
        """The seconds of the workers of this command, and its own steps so far."""
        return self._context.steps.take() + self._seconds.timings(self._images)

    @property
    def all_done(self) -> bool:
        return self._dispatcher.all_done

    def add(self, refs: Sequence[ChunkRef]) -> None:
        """These chunks are to be scored too."""
        if refs:
            self._dispatcher.add(refs)
            self._progress.total = (self._progress.total or 0) + sum(ref.rows for ref in refs)

    def prepare(self) -> None:
        """Do what can be done before the first chunk is known: Ray starts, and what uses it is imported."""
        with importing():
            begin_ray(self._context)
            # Imports Ray Data, which takes a second: most nights score little or nothing. Ray, which reads
            # its environment on import, starts in the meantime.
            with self._context.steps.step("import"):
                import jobs.scoring.start  # noqa: F401

    def turn(self, wait_s: float) -> None:
        """Give chunks out and take what has come of others; waits for that, at most `wait_s`.

        Raises PneumoniaError where a chunk failed on every node that may try it.
        """
        if self.all_done:
            return
        execution = self._execution or self._start()
        if execution is None:
            return
        now = time.monotonic()
        self._follow(execution, now, stopping=False)
        execution.put(*self._dispatcher.take(self._room(), now, self._workers))
        execution.put(*self._dispatcher.second_copies(self._actors, now))
        for outcome in execution.arrived(wait_s):
            self._handle(outcome)
            self._tell_left_out()
        self._check_progress()

    def _room(self) -> int:
        """How many chunks may be out. Where all fail, few are tried, and the run ends soon."""
        actors = self._actors.total()
        if self._dispatcher.failing:
            return max(1, CHUNKS_PER_ACTOR * actors)
        return max(_LEAST_OUT, _OUT_PER_ACTOR * actors)

    def finish_begun(self) -> None:
        """Wait until the chunks that workers have begun are done. No other is begun."""
        execution = self._execution
        while execution is not None and self._dispatcher.out:
            now = time.monotonic()
            self._follow(execution, now, stopping=True)
            for outcome in execution.arrived(0.2):
                self._handle(outcome, stopping=True)
            self._dispatcher.forget_lost(self._nodes, now)

    def _start(self) -> "Execution | None":
        """Start the execution when the cluster has a node; None where the run must end before."""
        self.prepare()
        start_ray(self._context)
        # Not at the top: see `prepare`.
        from jobs.scoring.start import start_execution

        chunks = math.ceil((self._progress.total or 0) / self._run.record.configuration.chunk_size)
        execution = start_execution(self._context, self._run, self._view, min(chunks, _LEAST_OUT))
        if execution is not None:
            self._execution = self._stack.enter_context(execution)
            self._context.steps.begin("workers")
            self._progress_at = time.monotonic()
        return execution

    def _follow(self, execution: "Execution", now: float, stopping: bool) -> None:
        """Exchange news with the workers, and look at the nodes from time to time."""
        left_out, keep_from = self._dispatcher.left_out, self._dispatcher.keep_from
        report = execution.exchange(Orders(stopping, left_out, keep_from, execution.hash_key))
        # A queue that is started again must not take the key of the first node that asks it.
        execution.hash_key = report.hash_key
        self._leave_out(report.of_another_key)
        if self._instance and report.instance != self._instance:
            self._dispatcher.lose_queue(now)
        self._instance = report.instance
        for chunk, node in report.begun:
            self._context.steps.first_begun()
            self._dispatcher.begun(chunk, node, now)
        for chunk in report.turned_away:
            self._dispatcher.returned(chunk, now)
        if now - self._nodes_at >= _NODES_EVERY_S:
            present = present_nodes()
            self._look_at(present, execution, now)
            unbegun = 0 if stopping else self._dispatcher.out - self._dispatcher.begun_count
            execution.ask_for_nodes(present, self._actors.total(), unbegun)
        self._actors = Counter(node for node in report.actors.values() if node in self._nodes)
        self._workers = self._nodes if execution.decodes_anywhere else frozenset(self._actors)
        if now - self._joined_at < _ACTORS_START_S:
            # A chunk that fails on one node waits for the actors of another.
            self._workers |= self._seated & self._nodes

    def _look_at(self, present: Sequence[Node], execution: "Execution", now: float) -> None:
        """Notice which nodes have joined, and which are lost."""
        nodes = frozenset(node.node_id for node in present)
        if nodes - self._nodes:
            self._joined_at, self._seated = now, execution.seated(present)
            if self._nodes:
                notice_new_nodes()
        if self._nodes - nodes:
            self._dispatcher.lose_nodes(nodes, now)
        self._nodes, self._nodes_at = nodes, now

    def _handle(self, outcome: Outcome, stopping: bool = False) -> None:
        now = time.monotonic()
        match outcome:
            case Receipt():
                self._progress_at = now
                self._seconds.add(outcome.actor, outcome.stages, outcome.tasks)
                if self._dispatcher.done(outcome):
                    self._count(outcome)
            case ChunkFailure():
                self._progress_at = now
                self._handle_failure(outcome, now, stopping)
            case NotBegun(chunk):
                self._dispatcher.dropped(chunk)

    def _count(self, receipt: Receipt) -> None:
        images = receipt.scored + receipt.rejected
        self._images += images
        self._rejected += receipt.rejected
        self._images_by_node[receipt.node] += images
        self._progress.advance(images, rejected=self._rejected)

    def _handle_failure(self, failure: ChunkFailure, now: float, stopping: bool) -> None:
        if stopping:
            # The next command tries it again.
            self._dispatcher.dropped(failure.chunk)
            return
        if not self._dispatcher.failed(failure, now, self._workers):
            raise PneumoniaError(failure.error, failure.remedy)

    def _leave_out(self, of_another_key: frozenset[str]) -> None:
        """Leave out the nodes that have joined with another key than the run's, and say so."""
        for node in of_another_key - self._dispatcher.left_out:
            self._dispatcher.leave_out(node)
            say(
                f"warning: node {node[:8]} is left out: its {HASH_KEY_VARIABLE} is not that of the other "
                "nodes, so that the study_key of its images could not be joined with theirs"
            )
            self._told |= {node}

    def _tell_left_out(self) -> None:
        """Say which nodes are left out from now on, and why."""
        for node in self._dispatcher.left_out - self._told:
            why = self._dispatcher.last_error(node).rstrip(".")
            say(f"node {node[:8]} is left out: chunks fail there that other nodes score ({why})")
        self._told = self._dispatcher.left_out

    def _check_progress(self) -> None:
        """Raise PneumoniaError where workers that live have finished nothing for too long."""
        now = time.monotonic()
        if not self._workers & self._nodes:
            # A cluster that has lost its workers, or has none yet, may get others.
            self._progress_at = now
            return
        limit_s = NO_PROGRESS_S * max(1, self._run.record.configuration.chunk_size // _NO_PROGRESS_IMAGES)
        if now - self._progress_at > limit_s:
            raise PneumoniaError(
                "the cluster finished no chunk for too long: its workers are stuck, or have too little "
                "memory or too few CPUs. What is finished is kept.",
                Remedy.RUN_AGAIN,
            )

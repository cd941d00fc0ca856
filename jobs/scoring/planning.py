"""Listing and planning in a thread, beside the scoring: the cluster waits for neither."""

import itertools
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from jobs.console.output import printable
from jobs.scoring.context import ScoringContext
from pneumonia_core.archives.lister import Lister
from pneumonia_core.archives.skipped import describe_skipped
from pneumonia_core.errors import InvalidInput
from pneumonia_core.results.table_view import TableView
from pneumonia_core.runs.inventory import InventoryShard
from pneumonia_core.runs.planner import Planner
from pneumonia_core.runs.run import Run

FIRST_LISTING_WAIT_S: Final = 5.0
# Planning a shard reads the table once, so the waits grow. The cluster scores at that time.
LONGEST_LISTING_WAIT_S: Final = 300.0
# At least so many plans are made in the time that is left until a deadline.
_PLANS_LEFT: Final = 4
_POLL_S: Final = 0.25
_LEAVE_AFTER_S: Final = 3.0


class NothingListed(InvalidInput):
    """An archive has no image: its storage may not be mounted."""


@dataclass(frozen=True)
class Planned:
    """The next shards of the inventory. `complete` says that none will follow.

    `shards_until_end`: how many shards of the run there are up to the last archive's end, once it is reached.
    """

    shards: tuple[InventoryShard, ...]
    complete: bool
    shards_until_end: int | None = None


class PlanningThread:
    """Lists the archives of a run and plans what is listed, until both are complete."""

    def __init__(self, context: ScoringContext, run: Run, planner: Planner, lister: Lister) -> None:
        self._context = context
        self._planner = planner
        self.lister = lister
        self._shards = list(run.record.shards)
        self._shards_until_end = run.record.shards_until_end
        self._segments_planned = 0
        self._chunk_size = run.record.configuration.chunk_size
        self._relisted = run.resumed
        self._ready: queue.SimpleQueue[Planned | BaseException] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="planning", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._planner.interrupt()
        self._thread.join(_LEAVE_AFTER_S)

    @property
    def skip_counts(self) -> Mapping[str, int]:
        """Numbers of what the listing has skipped so far, by the codes of SkipReason."""
        return self.lister.skip_counts

    def take(self, timeout_s: float) -> Planned | None:
        """The next planned shards; None where there are none within `timeout_s`.

        Raises what the listing or the planning raised.
        """
        try:
            planned = self._ready.get(timeout=timeout_s) if timeout_s else self._ready.get_nowait()
        except queue.Empty:
            return None
        if isinstance(planned, BaseException):
            raise planned
        return planned

    def _run(self) -> None:
        try:
            for number in itertools.count():
                self._wait(listing_wait_s(self._context, number))
                # What is planned after the deadline is not scored, and each plan reads the table.
                if self._stopping.is_set() or self._context.past_deadline:
                    return
                complete = self.lister.done
                before = len(self._shards)
                self._plan(self.lister.take())
                planned = tuple(self._shards[before:])
                if planned or complete:
                    self._ready.put(Planned(planned, complete, self._shards_until_end))
                if complete:
                    return
        except BaseException as error:  # noqa: BLE001 - handed to the thread that takes the shards
            if not self._stopping.is_set():
                self._ready.put(error)

    def _plan(self, segments: Sequence[Path]) -> None:
        """Plan the next segments. No shard has images from before and from after the last archive's end."""
        until_end = self.lister.segments_until_end
        left = None if until_end is None else max(until_end - self._segments_planned, 0)
        self._add(segments[:left])
        if left is not None and left <= len(segments) and self._shards_until_end is None:
            self._shards_until_end = len(self._shards)
        self._add(segments[len(segments) if left is None else left :])

    def _add(self, segments: Sequence[Path]) -> None:
        self._shards += self._planner.plan(segments, self._shards, self._chunk_size, relisted=self._relisted)
        self._segments_planned += len(segments)

    def _wait(self, wait_s: float) -> None:
        """Wait until the listing is done, or has a whole shard, at most `wait_s` seconds."""
        until = time.monotonic() + wait_s
        while not self.lister.wait(min(_POLL_S, max(until - time.monotonic(), 0.0))):
            if self._stopping.is_set() or time.monotonic() >= until:
                return


def listing_wait_s(context: ScoringContext, number: int) -> float:
    """How long to wait for the listing before plan `number`, counted from 0.

    Each wait is longer than the one before. Towards a deadline they become shorter: what is planned last is
    not scored any more.
    """
    left_s = max(context.left_s, 0.0)
    towards_end_s = min(max(left_s / _PLANS_LEFT, FIRST_LISTING_WAIT_S), left_s)
    # The exponent is bounded: otherwise the float overflows after a thousand plans.
    return min(FIRST_LISTING_WAIT_S * 2 ** min(number, 10), LONGEST_LISTING_WAIT_S, towards_end_s)


def check_found(archives: Sequence[str], view: TableView, lister: Lister) -> None:
    """Raise NothingListed where the listing has no image, or none of an archive whose images the table has.

    A storage that is not mounted looks like an empty folder, and its images would count as gone.
    """
    skipped = f" (skipped: {describe_skipped(lister.skip_counts)})" if lister.skip_counts else ""
    if known := view.known_images(lister.empty):
        empty = " nor in ".join(f"{printable(uri)}, of which the table has {n:,}" for uri, n in known.items())
        raise NothingListed(
            f"no images found in {empty}{skipped}. Check that its storage is mounted, then run the command "
            "again. Leave an archive out of the command if it is really empty."
        )
    if not lister.listed:
        listed = ", ".join(printable(archive) for archive in archives)
        raise NothingListed(f"no images found in {listed}{skipped}. Check the archive's path.")

"""Crash journal of a chunk: whether an earlier attempt at it ended without a word."""

import contextlib
import json
from types import TracebackType
from typing import Final, Self

from pneumonia_core.errors import PneumoniaError, Remedy
from pneumonia_core.storage.files import delete_file, exists, read_bytes, write_bytes
from pneumonia_core.storage.location import Location
from pneumonia_core.system.fatal_signals import end_at_once_on_crash

MAX_CRASHES: Final = 20


class CrashJournal:
    """The attempts at one chunk in one stage of the pipeline, each with a file that names its node.

    An attempt that ends, well or with an exception, takes its file away. One whose file stays ended with its
    process. Why, nobody can say afterwards: it may have crashed, been killed from outside, or been lost with
    its node. So a journal blames no image. It only says that the chunk should be tried in child processes,
    whose ends say why they came.
    """

    def __init__(self, run_folder: Location, stage: str, chunk: int, node: str) -> None:
        """Begin an attempt on this node.

        Raises PneumoniaError where too many attempts ended on nodes that live on.
        """
        # A process that crashes and does not end would be waited for until someone kills it.
        end_at_once_on_crash()
        # The folder's name is that of unfinished runs of earlier versions.
        self._folder = run_folder.child("begun")
        self._stem = f"{chunk:08d}-{stage}"
        nodes: list[str | None] = []
        while exists(self._file(len(nodes))):
            nodes.append(_node_of(self._file(len(nodes))))
        self.attempts = len(nodes)
        crashes = _crashes([*nodes, node])
        if crashes >= MAX_CRASHES:
            # The next command may have better machines: it gets as many attempts.
            self.finish()
            raise PneumoniaError(
                f"Chunk {chunk} crashed {crashes} workers and no single image causes it: the workers are "
                "probably out of memory. Nothing of this run was committed.",
                Remedy.FEWER_ACTORS,
            )
        # The file must survive this process, not a power failure: no fsync.
        write_bytes(self._file(self.attempts), json.dumps({"node": node}).encode(), durable=False)

    @property
    def is_retry(self) -> bool:
        """Whether an earlier attempt ended with its process, or is still going on elsewhere."""
        return self.attempts > 0

    def finish(self) -> None:
        """The chunk's part is written: delete the journal."""
        for attempt in range(self.attempts + 1):
            delete_file(self._file(attempt))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """After an exception the attempt leaves no file: its process says why and lives on."""
        if kind is not None:
            # The storage may be what failed. A file that stays costs the next attempt some time.
            with contextlib.suppress(OSError, PneumoniaError):
                delete_file(self._file(self.attempts))

    def _file(self, attempt: int) -> Location:
        return self._folder.child(f"{self._stem}.{attempt:04d}.json")


def _crashes(nodes: list[str | None]) -> int:
    """How many attempts, on these nodes in turn, ended although their node lived on.

    A node that has a later attempt lives on. Others may be lost, and a cluster may lose them all night.
    """
    return sum(node is not None and node in nodes[number + 1 :] for number, node in enumerate(nodes))


def _node_of(file: Location) -> str | None:
    """The node of an attempt.

    None where its file was written by an earlier version, or lost its content in a power failure.
    """
    try:
        record = json.loads(read_bytes(file))
    except (ValueError, FileNotFoundError):  # another attempt may have finished the chunk
        return None
    node = record.get("node") if isinstance(record, dict) else None
    return node if isinstance(node, str) else None

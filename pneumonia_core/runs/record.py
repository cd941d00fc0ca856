"""The two shapes of the scoring pipeline, as Ray Data graphs over the same read, decode and score functions."""

import datetime
import json
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

from pneumonia_core.archives.manifests import ListingRules
from pneumonia_core.runs.inventory import InventoryShard
from pneumonia_core.storage.files import (
    delete_file,
    delete_folder,
    write_bytes,
)
from pneumonia_core.storage.location import Location
from pneumonia_core.storage.lock import FileLock, Lease
from pneumonia_core.system.failpoints import failpoint

UNFINISHED: Final = ".unfinished"
ENDED: Final = ("committed", "abandoned")


@dataclass(frozen=True)
class RunRequest:
    """What a scoring run is asked to do. A resumed run must be asked the same."""

    archives: tuple[str, ...]
    model: str
    model_id: str
    engine: str
    precision: str
    rescore: str | None
    retry_rejected: bool
    limit: int | None
    chunk_size: int
    run_date: str
    date_is_given: bool
    rules: ListingRules = field(default_factory=ListingRules)

    def configuration(self) -> dict[str, Any]:
        """What must be the same when a run is resumed. The date is the run's own, so that a night that
        died is finished under its date."""
        return {
            "archives": list(self.archives),
            "carry": list(self.rules.carry),
            "allow_prefix": list(self.rules.allow_prefixes),
            "model_id": self.model_id,
            "engine": self.engine,
            "precision": self.precision,
            "rescore": self.rescore,
            "retry_rejected": self.retry_rejected,
            "limit": self.limit,
            "chunk_size": self.chunk_size,
        }


@dataclass
class Run:
    """An open run: its folder, its record (what run.json holds) and the lock that says it is alive."""

    folder: Location
    record: dict[str, Any]
    batches: list[InventoryShard] = field(default_factory=list)
    resumed: bool = False
    _lock: FileLock | Lease | None = None

    @property
    def run_id(self) -> str:
        return str(self.record["run_id"])

    def answers(self, order: RunRequest) -> bool:
        """Whether the run was asked what the order asks."""
        return not difference(self.record["configuration"], order.configuration())

    def save(self, **changes: Any) -> None:
        """Write run.json, whole, with these fields changed."""
        failpoint("save.before", str(changes.get("state", "")))
        if self._lock is not None:
            self._lock.check()
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self.record.update(changes, updated_at=now, batches=[batch.as_json() for batch in self.batches])
        text = json.dumps(self.record, indent=2, default=str) + "\n"
        write_bytes(self.folder.child("run.json"), text.encode())
        failpoint("save.after", str(changes.get("state", "")))

    def finish(self, state: str, **changes: Any) -> None:
        """The run has ended: record it, and let no later command resume it."""
        self.save(state=state, **changes)
        delete_marker(self.folder, self.run_id)
        failpoint("cleanup")
        for name in ("parts", "chunks", "begun"):
            delete_folder(self.folder.child(name))

    def discard(self) -> None:
        """Remove a run that found nothing to do."""
        delete_marker(self.folder, self.run_id)
        # Under its lock: another command must not resume what is being removed.
        delete_folder(self.folder)
        self.unlock()

    def unlock(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unlock()


def marker(folder: Location, run_id: str) -> Location:
    """The file that says that the run of this folder is unfinished."""
    return folder.parent.child(UNFINISHED).child(run_id)


def delete_marker(folder: Location, run_id: str) -> None:
    delete_file(marker(folder, run_id))


def difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    return "\n".join(
        f"  {key}: {json.dumps(old.get(key))} then, {json.dumps(new.get(key))} now"
        for key in new
        if old.get(key) != new.get(key)
    )


_STOP: Final = "stop"


def request_stop(run_folder: Location) -> None:
    """Ask actors and tasks to finish the chunks at hand and to begin no other."""
    write_bytes(run_folder.child(_STOP), b"")


def clear_stop(run_folder: Location) -> None:
    """Take back a stop that an earlier command asked for."""
    delete_file(run_folder.child(_STOP))

"""The parts of a run merged into a few large files, here or in Ray tasks; what fails is tried elsewhere."""

import random
import secrets
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from jobs.ray_runtime.session import ray_errors_explained
from jobs.scoring.context import ScoringContext, start_ray
from pneumonia_core.errors import PneumoniaError, Remedy
from pneumonia_core.runs.inventory import ChunkRef
from pneumonia_core.runs.parts import ConservationError, Merged, merge_parts
from pneumonia_core.runs.run import Run
from pneumonia_core.storage.errors import error_text
from pneumonia_core.storage.location import Location

if TYPE_CHECKING:
    from ray import ObjectRef

ROWS_PER_FILE: Final = 262_144
MAX_TRIES: Final = 4
# The pause before the second try; each further one is twice as long.
FIRST_PAUSE_S: Final = 1.0
# How many lost workers or nodes one try may cost.
MAX_LOST_WORKERS: Final = 20


@dataclass(frozen=True)
class Merge:
    """One data file to write: the arguments of `merge_parts`.

    `path` is the beginning of its name. Each try adds a random end: one that ends late, in a process that has
    lost the run or on a node that was taken for lost, must not replace a file that was committed since.
    """

    run_folder: Location
    scores: Location
    path: str
    chunks: Sequence[ChunkRef]
    superseded: frozenset[int]

    def carry_out(self) -> Merged | PneumoniaError:
        """The file, or why the storage of this node did not take it."""
        path = f"{self.path}-{secrets.token_hex(8)}.parquet"
        try:
            return merge_parts(self.run_folder, self.scores, path, self.chunks, self.superseded)
        except PneumoniaError as error:
            return error
        except OSError as error:
            return PneumoniaError(
                f"{error_text(error)} while the parts were merged. Nothing of this run was committed.",
                Remedy.FIX_AND_RUN_AGAIN,
            )


def merge_run(context: ScoringContext, run: Run, refs: Sequence[ChunkRef]) -> list[Merged]:
    """The parts of these chunks as files under scores/.

    Few rows are merged in this process, many in Ray tasks, and so are those that fail here. Raises
    ConservationError, and PneumoniaError where a merge fails MAX_TRIES times.
    """
    merges = _merges(run, refs)
    merged: dict[str, Merged] = {}
    failures = Counter[str]()
    if sum(ref.rows for ref in refs) <= context.options.merge_here_rows:
        for merge in merges:
            outcome = merge.carry_out()
            if isinstance(outcome, ConservationError):
                raise outcome
            if isinstance(outcome, Merged):
                merged[merge.path] = outcome
            else:
                failures[merge.path] = 1
    if left := [merge for merge in merges if merge.path not in merged]:
        # A resumed run may have no chunk left to score. Without this line Ray would join any cluster that it
        # finds.
        start_ray(context)
        with ray_errors_explained():
            merged |= _merge_on_cluster(left, failures)
    return [merged[merge.path] for merge in merges]


def merge_here(run: Run, refs: Sequence[ChunkRef]) -> list[Merged]:
    """The parts of these chunks as files under scores/, merged in this process whatever their number.

    Raises PneumoniaError where a file cannot be written.
    """
    merged = []
    for merge in _merges(run, refs):
        outcome = merge.carry_out()
        if isinstance(outcome, PneumoniaError):
            raise outcome
        merged.append(outcome)
    return merged


def _merges(run: Run, refs: Sequence[ChunkRef]) -> list[Merge]:
    record = run.record
    per_file = max(1, ROWS_PER_FILE // record.configuration.chunk_size)
    groups = [refs[start : start + per_file] for start in range(0, len(refs), per_file)]
    names = [f"run_date={record.run_date}/{run.run_id}-{number:05d}" for number in range(len(groups))]
    scores = run.results.child("scores")
    return [
        Merge(run.folder, scores, name, group, run.superseded)
        for name, group in zip(names, groups, strict=True)
    ]


def _merge_on_cluster(merges: Sequence[Merge], failures: Counter[str]) -> dict[str, Merged]:
    """What each merge gives, by its path. `failures` counts earlier ones, which were in this process."""
    # Takes a second; a small run is merged without it.
    import ray

    # Ray's types do not know these options.
    task: Any = ray.remote(num_cpus=1, max_retries=MAX_LOST_WORKERS)(_merge_after_pause)
    avoided = {ray.get_runtime_context().get_node_id()} if failures else set()

    def submit(merge: Merge) -> "ObjectRef[tuple[str, Merged | PneumoniaError]]":
        submitted: ObjectRef[tuple[str, Merged | PneumoniaError]] = task.options(
            scheduling_strategy=_strategy(avoided)
        ).remote(merge, _pause_s(failures[merge.path]))
        return submitted

    at_work = {submit(merge): merge for merge in merges}
    merged: dict[str, Merged] = {}
    while at_work:
        (ready, *_), _ = ray.wait(list(at_work))
        merge = at_work.pop(ready)
        node, outcome = ray.get(ready)
        if isinstance(outcome, Merged):
            merged[merge.path] = outcome
            continue
        failures[merge.path] += 1
        if isinstance(outcome, ConservationError) or failures[merge.path] >= MAX_TRIES:
            raise outcome
        avoided.add(node)
        at_work[submit(merge)] = merge
    return merged


def _pause_s(failures: int) -> float:
    """How long a merge waits that has failed so often; by chance, so that not all come back at once."""
    return FIRST_PAUSE_S * 2 ** (failures - 1) * random.uniform(0.5, 1.5) if failures else 0.0


def _strategy(avoided: set[str]) -> object:
    """Where a merge runs: on a node that is not `avoided`, if there is one, else on any."""
    # As in `_merge_on_cluster`.
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    if not avoided:
        return "SPREAD"
    others = [
        node["NodeID"]
        for node in ray.nodes()
        if node["Alive"] and node["Resources"].get("CPU", 0) >= 1 and node["NodeID"] not in avoided
    ]
    # Soft: the node may be lost before the task is there.
    return NodeAffinitySchedulingStrategy(random.choice(others), soft=True) if others else "SPREAD"


def _merge_after_pause(merge: Merge, pause_s: float) -> tuple[str, Merged | PneumoniaError]:
    """In a Ray task: its node, and the file or why there is none. The driver does not wait for the pause."""
    import ray

    time.sleep(pause_s)
    return ray.get_runtime_context().get_node_id(), merge.carry_out()

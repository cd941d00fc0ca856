"""The engine of an actor, opened once from the bundle that the driver has shipped."""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pneumonia_core.bundles.engines import BATCH_SIZE, Engine
from pneumonia_core.errors import PneumoniaError
from pneumonia_core.scoring.engine_batch import BatchScorer, batches_at_once, in_this_process
from pneumonia_core.scoring.isolated_engine import EngineFiles, isolated_engine
from pneumonia_core.system.scratch import ScratchFolder

if TYPE_CHECKING:
    from ray import ObjectRef

# Files by their paths in the bundle. Arrays are read where Ray's object store has them; bytes would be
# pickled into it, and copied out again.
ShippedFiles = dict[str, npt.NDArray[np.uint8]]


@dataclass(frozen=True)
class EngineSpec:
    """Which engine an actor opens.

    `bundle_files` are in Ray's object store, so a worker needs no path to the bundle.
    """

    bundle_files: "ObjectRef[ShippedFiles]"
    engine: str
    precision: str
    gpu: bool
    batch_size: int = BATCH_SIZE


class EngineOnce:
    """An actor's engine, opened once. It takes as many batches at once as it has use for."""

    def __init__(self, threads: int) -> None:
        self._opening = threading.Lock()
        self._turns: threading.Semaphore | None = None
        self._threads = threads
        self._engine: Engine | None = None
        self._isolation = threading.Lock()

    def open_ahead(self, spec: EngineSpec) -> None:
        """Open it in a thread, while its first chunk is on the way, which tries again where this fails."""
        threading.Thread(target=self._try_to_open, args=(spec,), name="engine", daemon=True).start()

    def _try_to_open(self, spec: EngineSpec) -> None:
        with contextlib.suppress(PneumoniaError, OSError):
            self.open(spec)

    def open(self, spec: EngineSpec) -> Engine:
        with self._opening:
            if self._engine is None:
                with engine_files(spec, self._threads) as files:
                    self._engine = files.open()
            return self._engine

    def _turns_of(self, spec: EngineSpec) -> threading.Semaphore:
        with self._opening:
            if self._turns is None:
                self._turns = threading.BoundedSemaphore(batches_at_once(spec.gpu))
            return self._turns

    @contextlib.contextmanager
    def scorer(self, spec: EngineSpec, isolated: bool) -> Iterator[BatchScorer]:
        """What scores a chunk's batches, `isolated` in a child process, of which an actor has one at most."""
        if not isolated:
            yield in_this_process(self.open(spec), self._turns_of(spec))
            return
        with (
            self._isolation,
            engine_files(spec, self._threads) as files,
            isolated_engine(files) as scorer,
        ):
            yield scorer


@contextlib.contextmanager
def engine_files(spec: EngineSpec, threads: int) -> Iterator[EngineFiles]:
    """The shipped bundle in a folder of its own."""
    # A command that is refused imports this module, but not Ray, which takes a second.
    import ray

    files: ShippedFiles = ray.get(spec.bundle_files)
    with ScratchFolder("bundle") as folder:
        for name, data in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data.data)
        yield EngineFiles(folder, spec.engine, spec.precision, threads, spec.gpu, spec.batch_size)

"""An engine in a child process: an image that crashes it costs one row, not its worker."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from pneumonia_core.bundles.bundle import open_bundle
from pneumonia_core.bundles.choice import load_engine
from pneumonia_core.bundles.engines import BATCH_SIZE, Engine, Scores
from pneumonia_core.errors import PneumoniaError, Rejection, Remedy
from pneumonia_core.scoring.engine_batch import CRASHED_ENGINE, ENGINE_ERROR, BatchScorer, run_engine
from pneumonia_core.system.child_process import ChildPool, Crashed, TooSlow

# Opening an engine on a GPU that compiles its kernels takes minutes.
TIME_LIMIT_S: Final = 900.0


@dataclass(frozen=True)
class EngineFiles:
    """An engine as files: a bundle's folder, with only what this engine needs, and how it is opened."""

    folder: Path
    engine: str
    precision: str
    threads: int
    gpu: bool
    batch_size: int = BATCH_SIZE

    def open(self) -> Engine:
        """The engine, after a check of the files' hashes. Raises InvalidInput."""
        files = (path for path in self.folder.rglob("*") if path.is_file())
        bundle = open_bundle(
            self.folder, only=frozenset(path.relative_to(self.folder).as_posix() for path in files)
        )
        return load_engine(bundle, self.engine, self.precision, self.threads, self.gpu, self.batch_size)


@dataclass(frozen=True)
class _Request:
    """Images uint8 [B, H, W] for the engine; None where it is only to be opened."""

    files: EngineFiles
    pixels: np.ndarray | None = None
    uris: tuple[str, ...] = ()


@contextlib.contextmanager
def isolated_engine(files: EngineFiles) -> Iterator[BatchScorer]:
    """A scorer over an engine in a child process, which ends with the block.

    An image on which the child crashes alone, twice, is `crashed_engine`. The scorer raises PneumoniaError
    where the engine does not open in a child, does not answer, or fails on every image.
    """
    # A GPU's driver maps more addresses than a machine has memory, so that only the time is limited.
    children = ChildPool(_answer, TIME_LIMIT_S, memory_bytes=None, threads=files.threads)

    def attempt(pixels: np.ndarray, uris: Sequence[str]) -> Scores | Rejection:
        # A child that is new opens the engine first, so that a crash there is not one on an image.
        if isinstance(children.ask(_Request(files)), Crashed | TooSlow):
            raise _no_engine(files, "does not open")
        answer = children.ask(_Request(files, pixels, tuple(uris)))
        if isinstance(answer, TooSlow):
            raise _no_engine(files, f"gave no answer within {answer.limit_s:.0f} s")
        if isinstance(answer, Crashed):
            return CRASHED_ENGINE
        return answer or ENGINE_ERROR

    with contextlib.closing(children):
        yield BatchScorer(files.engine, attempt)


def _no_engine(files: EngineFiles, what: str) -> PneumoniaError:
    return PneumoniaError(
        f"The engine {files.engine} {what} in a child process: either the engine is broken, or this machine "
        "has too little memory for it.",
        Remedy.OTHER_ENGINE,
    )


# The engine of a child process, once it is open.
_opened: dict[EngineFiles, Engine] = {}


def _answer(request: _Request) -> Scores | None:
    """In the child: the scores; None where the engine raises, and where it was only to be opened."""
    if request.files not in _opened:
        _opened[request.files] = request.files.open()
    if request.pixels is None:
        return None
    return run_engine(_opened[request.files], request.pixels, request.uris)

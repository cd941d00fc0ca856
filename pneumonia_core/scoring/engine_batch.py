"""One batch in an engine: the scores of its images, and why those have none that it fails on alone."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from pneumonia_core.bundles.engines import Engine, Scores
from pneumonia_core.errors import PneumoniaError, Rejection, Remedy
from pneumonia_core.system.failpoints import failpoint

ENGINE_ERROR: Final = Rejection("engine_error", "the engine gave no finite probabilities for it")
CRASHED_ENGINE: Final = Rejection("crashed_engine", "the engine's process died on it alone, twice")
# What an engine gives for images uint8 [B, H, W] with these URIs, or why it gives nothing.
Attempt = Callable[[np.ndarray, Sequence[str]], Scores | Rejection]


@dataclass(frozen=True)
class BatchScores:
    """Scores of the images of a batch, in order: NaN for those in `rejections`, whose keys are places in the
    batch.
    """

    scores: Scores
    rejections: dict[int, Rejection]


# The scores of the images uint8 [B, H, W] with these URIs.
ScoreBatch = Callable[[np.ndarray, Sequence[str]], BatchScores]


class BatchScorer:
    """Scores a batch with one attempt; where that fails, image by image.

    An engine that crashes on an image alone gets it once more: some crash once in thousands of calls. One
    that fails on an image is asked for a blank one, so that an image is not blamed for a broken engine.
    """

    def __init__(self, engine: str, attempt: Attempt) -> None:
        self._engine = engine
        self._attempt = attempt

    def __call__(self, pixels: np.ndarray, uris: Sequence[str]) -> BatchScores:
        """BatchScores of images uint8 [B, H, W]. Raises PneumoniaError where no image can be scored here."""
        whole = self._attempt(pixels, uris)
        if isinstance(whole, Scores):
            return BatchScores(whole, {})
        singles: list[Scores | Rejection] = []
        rejections: dict[int, Rejection] = {}
        for number, uri in enumerate(uris):
            single = self._alone(pixels[number : number + 1], uri)
            if isinstance(single, Rejection):
                if not rejections:
                    self._check_blank(np.zeros_like(pixels[:1]))
                rejections[number] = single
            singles.append(single)
        return BatchScores(_joined(singles), rejections)

    def _alone(self, image: np.ndarray, uri: str) -> Scores | Rejection:
        single = self._attempt(image, [uri])
        return self._attempt(image, [uri]) if single == CRASHED_ENGINE else single

    def _check_blank(self, blank: np.ndarray) -> None:
        if isinstance(self._attempt(blank, []), Rejection):
            raise every_image_fails(self._engine)


def every_image_fails(engine: str) -> PneumoniaError:
    """The error where it is not the image."""
    return PneumoniaError(
        f"The engine {engine} fails on every image: either the engine is broken, or this machine has too "
        "little memory for it.",
        Remedy.OTHER_ENGINE,
    )


def batches_at_once(gpu: bool) -> int:
    """How many batches an engine gets at once, each from a chunk of its own.

    While a GPU computes one, the next is on its way to it. On CPUs one batch has all the threads.
    """
    return 2 if gpu else 1


def in_this_process(engine: Engine, turns: threading.Semaphore) -> BatchScorer:
    """A scorer over this engine. `turns` bounds the batches in it where several chunks are at work."""

    def attempt(pixels: np.ndarray, uris: Sequence[str]) -> Scores | Rejection:
        with turns:
            return run_engine(engine, pixels, uris) or ENGINE_ERROR

    return BatchScorer(engine.name, attempt)


def run_engine(engine: Engine, pixels: np.ndarray, uris: Sequence[str]) -> Scores | None:
    """The scores of images uint8 [B, H, W], None where the engine raises. The URIs are for failpoints."""
    try:
        failpoint("engine", "\n".join(uris))
        return engine(pixels)
    except Exception:  # noqa: BLE001 - an engine may raise anything; its images become rows
        return None


def _joined(singles: Sequence[Scores | Rejection]) -> Scores:
    has_domain = any(isinstance(single, Scores) and single.domain is not None for single in singles)
    blank = Scores(
        np.full((1, 3), np.nan, np.float32), np.full(1, np.nan, np.float32) if has_domain else None
    )
    return concatenate([single if isinstance(single, Scores) else blank for single in singles])


def concatenate(batches: Sequence[Scores]) -> Scores:
    """The scores of all batches, in order; those of no image where there is no batch."""
    if not batches:
        return Scores(np.zeros((0, 3), np.float32), None)
    domains = [batch.domain for batch in batches if batch.domain is not None]
    return Scores(
        np.concatenate([batch.probabilities for batch in batches]),
        np.concatenate(domains) if domains else None,
    )

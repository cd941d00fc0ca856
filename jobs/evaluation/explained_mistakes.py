"""The worst mistakes read again, with maps of what spoke for them, in one task on the cluster."""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

import numpy as np

from jobs.console.output import say
from pneumonia_core.archives.entries import ImageRef
from pneumonia_core.bundles.bundle import Bundle, ModelSpec, read_keras_model
from pneumonia_core.datasets.kermany import LabelledImage
from pneumonia_core.evaluation.table_scores import TableScores
from pneumonia_core.reports.explanations import Explanations, explanation
from pneumonia_core.reports.mistakes import Mistake, MistakeKind, worst_mistakes
from pneumonia_core.scoring.isolation import decode_all

if TYPE_CHECKING:
    # Keras takes seconds to import, and only the task needs it.
    from pneumonia_core.networks.activation_maps import ActivationMaps

_THREADS: Final = 1


def explain_mistakes(
    images: Sequence[LabelledImage], scores: TableScores, bundle: Bundle, count: int
) -> Explanations | None:
    """Up to `count` of the worst mistakes among the scored `images`; None where none was made."""
    mistakes = worst_mistakes(scores.scored, bundle.thresholds, count)
    if not mistakes:
        return None
    # Ray takes seconds to import: a command that is refused does without it.
    import ray

    refs = [images[scores.positions[mistake.index]].ref for mistake in mistakes]
    # The process ends with its task, and with it what TensorFlow holds.
    task = ray.remote(num_cpus=_THREADS, max_calls=1)(read_and_explain)
    squares, maps = ray.get(task.remote(read_keras_model(bundle), refs, bundle.spec, mistakes))
    read = [(number, pixels) for number, pixels in enumerate(squares) if pixels is not None]
    if len(read) < len(refs):
        say(f"{len(refs) - len(read)} of the worst mistakes could not be read again: left out of the page")
    return Explanations(
        [
            explanation(
                mistakes[number],
                PurePosixPath(refs[number].uri).name,
                pixels,
                None if maps is None else maps.maps[place],
            )
            for place, (number, pixels) in enumerate(read)
        ],
        unread=len(refs) - len(read),
        cells=maps.maps.shape[1] if maps else None,
        members=maps.members if maps else 1,
        mirrored=maps is not None and maps.mirrored,
    )


def read_and_explain(
    model: bytes, refs: Sequence[ImageRef], spec: ModelSpec, mistakes: Sequence[Mistake]
) -> "tuple[list[np.ndarray | None], ActivationMaps | None]":
    """The pixels uint8 [S, S] of each image, None where it cannot be read, and the maps of those that can.

    Each image is decoded in a child process, with the limits of scoring. `model` is the content of the
    bundle's model.keras.
    """
    squares = [decoded.pixels for decoded in decode_all(refs, spec.image_size, _THREADS, isolated=True)]
    kept = [number for number, pixels in enumerate(squares) if pixels is not None]
    if not kept:
        return squares, None
    # These import TensorFlow and Keras, which takes seconds.
    from pneumonia_core.bundles.tensorflow_runtime.engine import set_devices
    from pneumonia_core.networks.activation_maps import activation_maps
    from pneumonia_core.networks.scoring_model import load_scoring_model

    set_devices(_THREADS, gpu=False)
    maps = activation_maps(
        load_scoring_model(model),
        np.stack([pixels for pixels in squares if pixels is not None]),
        [mistakes[number].found for number in kept],
        [mistakes[number].kind is MistakeKind.WRONG_KIND for number in kept],
        spec.smoothing,
    )
    return squares, maps

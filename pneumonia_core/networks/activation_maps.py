"""Class activation maps: which parts of an image speak for a finding, to the network.

CAM (Zhou et al., CVPR 2016): the last feature maps, weighted as the head weighs their means. For a head of
global average pooling and one dense layer this is what Grad-CAM gives (Selvaraju et al., ICCV 2017, section
3.1), without a gradient.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import keras
import numpy as np
import numpy.typing as npt
from keras import layers, ops

from pneumonia_core.findings import BACTERIAL, CLASSES, NORMAL, VIRAL
from pneumonia_core.imaging.contract import SMOOTHING
from pneumonia_core.networks.prefilter import smooth_about
from pneumonia_core.networks.scoring_model import MIDDLE_GREY

# Feature maps of a batch in memory at a time.
_BATCH: Final = 4
_UNCHANGED_IN_SCORING: Final = (layers.Dropout, layers.Identity)


@dataclass(frozen=True)
class ActivationMaps:
    """`maps` float32 [N, h, w] from 0 to 1, each relative to its own strongest place; all 0 where none speaks
    for the finding. They are those of the first of so many `members` of the scoring model; `mirrored` is
    whether that also averages over the mirrored image, which they do not.
    """

    maps: npt.NDArray[np.float32]
    members: int
    mirrored: bool


@dataclass(frozen=True)
class _Head:
    """The end of a classifier: the `features` [B, h, w, C] before pooling, and its dense layer."""

    member: keras.Model
    features: keras.KerasTensor
    dense: layers.Dense


def activation_maps(
    scorer: keras.Model,
    images: npt.NDArray[np.uint8],
    found: Sequence[int],
    of_kind: Sequence[bool],
    smoothing: float = SMOOTHING,
) -> ActivationMaps | None:
    """What speaks for the findings in images uint8 [N, S, S], to a scoring model.

    `found` are indices into CLASSES. With `of_kind` the map shows what speaks for this kind of pneumonia
    against the other; else, for pneumonia against normal, or the other way round. `smoothing` is that of the
    scoring model. None where the network does not end in global average pooling and one dense layer.
    """
    members = [layer for layer in scorer.layers if isinstance(layer, keras.Model)] or [scorer]
    heads = [head for head in map(_head, members) if head is not None]
    if not heads:
        return None
    head = heads[0]
    probe = keras.Model(head.member.input, [head.features, head.dense.output])
    # A member of several starts from images that the scoring model has smoothed for all of them.
    seen = (
        images
        if head.member is scorer
        else ops.convert_to_numpy(smooth_about(images, MIDDLE_GREY, smoothing))
    )
    kernel = ops.convert_to_numpy(head.dense.kernel)
    maps = []
    for start in range(0, len(seen), _BATCH):
        batch = seen[start : start + _BATCH]
        features, logits = (ops.convert_to_numpy(each) for each in probe(batch, training=False))
        # A graph that mirrors gives twice as many: those of the images as they are come first.
        for each, its_logits, finding, kind in zip(
            features, logits, found[start : start + _BATCH], of_kind[start : start + _BATCH], strict=False
        ):
            maps.append(_positive_part(each @ (kernel @ evidence(its_logits, finding, kind))))
    mirrored = any(type(operation).__name__ == "Flip" for operation in scorer.operations)
    return ActivationMaps(np.array(maps, np.float32), len(heads), mirrored)


def evidence(logits: npt.NDArray[np.float32], found: int, of_kind: bool) -> npt.NDArray[np.float32]:
    """How the log-odds of a finding grow with each of the logits [3]: their gradient, float32 [3].

    The log-odds are of one kind of pneumonia against the other, or of pneumonia against normal. A calibration
    that keeps the ranking of these scales the gradient, and so leaves a map as it is.
    """
    gradient = np.zeros(len(CLASSES), np.float32)
    if of_kind:
        gradient[[BACTERIAL, VIRAL]] = (1, -1) if found == BACTERIAL else (-1, 1)
        return gradient
    powers = np.exp(logits[[BACTERIAL, VIRAL]] - logits[[BACTERIAL, VIRAL]].max())
    gradient[[BACTERIAL, VIRAL]] = powers / powers.sum()
    gradient[NORMAL] = -1
    return -gradient if found == NORMAL else gradient


def _positive_part(activation: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    positive = np.maximum(activation, 0)
    strongest = positive.max()
    return positive / strongest if strongest > 0 else positive


def _head(member: keras.Model) -> _Head | None:
    """The head of a classifier, or None where it is another one."""
    made_by = {id(layer.output): layer for layer in member.layers if not isinstance(layer, keras.Model)}
    for layer in member.layers:
        if isinstance(layer, layers.Dense) and layer.units == len(CLASSES):
            before = made_by.get(id(layer.input))
            while isinstance(before, _UNCHANGED_IN_SCORING):
                before = made_by.get(id(before.input))
            if isinstance(before, layers.GlobalAveragePooling2D):
                return _Head(member, before.input, layer)
    return None

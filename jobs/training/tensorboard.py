"""TensorBoard events, written by the driver without TensorFlow: figures, pictures and curves."""

import io
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pneumonia_core.findings import BACTERIAL, CLASSES, NORMAL, bacterial_share, p_pneumonia

EVENTS: Final = "events.out.tfevents"
THRESHOLDS: Final = 101


class EventLog:
    """An event file that TensorBoard reads: `tensorboard --logdir FOLDER`.

    TensorBoard draws all event files of a folder as one training: `anew` removes those of an earlier one.
    """

    def __init__(self, folder: Path, anew: bool = False) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder.mkdir(parents=True, exist_ok=True)
        for file in folder.glob(f"{EVENTS}.*") if anew else ():
            file.unlink()
        name = f"{EVENTS}.{int(time.time())}.{socket.gethostname()}"
        self._writer = RecordWriter((folder / name).open("ab"))
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Figures, each under its name."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._summary(step, [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])

    def image(self, step: int, tag: str, pixels: np.ndarray) -> None:
        """A picture uint8 [H, W] or [H, W, 3]."""
        from PIL import Image
        from tensorboard.compat.proto.summary_pb2 import Summary

        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        height, width = pixels.shape[:2]
        picture = Summary.Image(
            height=height,
            width=width,
            colorspace=1 if pixels.ndim == 2 else 3,
            encoded_image_string=buffer.getvalue(),
        )
        self._summary(step, [Summary.Value(tag=tag, image=picture)])

    def pr_curve(self, step: int, tag: str, truth: np.ndarray, scores: np.ndarray) -> None:
        """Precision and recall for truth bool [N] over thresholds of scores [N] from 0 to 1."""
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.pr_curve.metadata import create_summary_metadata
        from tensorboard.util.tensor_util import make_tensor_proto

        value = Summary.Value(
            tag=f"{tag}/pr_curves",
            metadata=create_summary_metadata(tag, "", THRESHOLDS),
            tensor=make_tensor_proto(_curve(truth, scores)),
        )
        self._summary(step, [value])

    def _summary(self, step: int, values: list[Any]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._write(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def _write(self, event: Any) -> None:
        self._writer.write(event.SerializeToString())
        self._writer.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()


def _curve(truth: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """What the plug-in draws, float32 [6, THRESHOLDS]: counts of true and false positives and negatives, precision and
    recall, at thresholds from 0 to 1."""
    above = scores[None, :] >= np.linspace(0, 1, THRESHOLDS)[:, None]
    true_positives = (above & truth).sum(axis=1)
    false_positives = (above & ~truth).sum(axis=1)
    true_negatives, false_negatives = (~truth).sum() - false_positives, truth.sum() - true_positives
    precision = true_positives / np.maximum(true_positives + false_positives, 1)
    recall = true_positives / max(int(truth.sum()), 1)
    rows = (true_positives, false_positives, true_negatives, false_negatives, precision, recall)
    return np.stack(rows).astype(np.float32)


_GAP: Final = 4
_CELL: Final = 110
_MARGIN: Final = 90


def write_epoch(log: EventLog, epoch: int, note: dict[str, Any], labels: np.ndarray) -> None:
    """An epoch's figures, and what its `probabilities` float32 [N, 3] say of the validation images."""
    probabilities = note["probabilities"]
    ill = labels != NORMAL
    log.scalars(epoch, {name: value for name, value in note.items() if isinstance(value, float)})
    log.pr_curve(epoch, "pneumonia vs normal", ill, p_pneumonia(probabilities))
    log.pr_curve(epoch, "bacterial vs viral", labels[ill] == BACTERIAL, bacterial_share(probabilities[ill]))
    counts = np.zeros((len(CLASSES), len(CLASSES)), int)
    np.add.at(counts, (labels, probabilities.argmax(axis=1)), 1)
    log.image(epoch, "confusion", confusion_picture(counts))


def grid(images: np.ndarray) -> np.ndarray:
    """Pictures uint8 [N, H, W] beside and below each other, uint8 [rows, columns]."""
    count, height, width = images.shape
    columns = int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    sheet = np.full((rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP), 255, np.uint8)
    for number, image in enumerate(images):
        top, left = (number // columns) * (height + _GAP), (number % columns) * (width + _GAP)
        sheet[top : top + height, left : left + width] = image
    return sheet


def confusion_picture(counts: np.ndarray) -> np.ndarray:
    """A table of counts int [truth, predicted] as a picture uint8 [H, W, 3], darker where more of a row are."""
    classes = len(counts)
    side = _MARGIN + classes * _CELL
    picture = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(picture)
    small, large = ImageFont.load_default(14), ImageFont.load_default(22)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    for row, column in np.ndindex(counts.shape):
        left, top = _MARGIN + column * _CELL, _MARGIN + row * _CELL
        share = float(shares[row, column])
        shade = (round(255 - 215 * share), round(255 - 150 * share), 255 - round(75 * share))
        draw.rectangle((left, top, left + _CELL - 2, top + _CELL - 2), shade)
        ink = "white" if share > 0.6 else "black"
        middle = (left + _CELL / 2, top + _CELL / 2)
        draw.text((middle[0], middle[1] - 12), f"{counts[row, column]}", ink, large, "mm")
        draw.text((middle[0], middle[1] + 14), f"{share:.0%}", ink, small, "mm")
    for number, name in enumerate(CLASSES):
        along = _MARGIN + (number + 0.5) * _CELL
        draw.text((along, _MARGIN - 14), name, "black", small, "mm")
        draw.text((_MARGIN - 8, along), name, "black", small, "rm")
    draw.text((_MARGIN + classes * _CELL / 2, 24), "found", "black", large, "mm")
    draw.text((12, 48), "truth", "black", large, "lm")
    return np.asarray(picture)

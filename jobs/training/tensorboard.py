"""TensorBoard events, written by the driver without TensorFlow: scalars, pictures and curves."""

import io
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.pr_curve.metadata import create_summary_metadata
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util.tensor_util import make_tensor_proto

from jobs.training.messages import EpochDone
from pneumonia_core.findings import CLASSES
from pneumonia_core.training.validation import BinaryScores, binary_tasks, confusion_counts

EVENTS: Final = "events.out.tfevents"
THRESHOLDS: Final = 101
_GAP: Final = 4


class EventLog:
    """An open event file for `tensorboard --logdir FOLDER`.

    TensorBoard draws all event files of a folder as one training: `fresh` deletes those of an earlier one.
    """

    def __init__(self, folder: Path, fresh: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for file in folder.glob(f"{EVENTS}.*") if fresh else ():
            file.unlink()
        name = f"{EVENTS}.{int(time.time())}.{socket.gethostname()}"
        self._writer = RecordWriter((folder / name).open("ab"))
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write numbers, each under its name."""
        self._summary(step, [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])

    def image(self, step: int, tag: str, pixels: np.ndarray) -> None:
        """Write a picture uint8 [H, W] or [H, W, 3]."""
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

    def pr_curve(self, step: int, tag: str, task: BinaryScores) -> None:
        """Write precision and recall over thresholds from 0 to 1."""
        value = Summary.Value(
            tag=f"{tag}/pr_curves",
            metadata=create_summary_metadata(tag, "", THRESHOLDS),
            tensor=make_tensor_proto(_curve(task)),
        )
        self._summary(step, [value])

    def close(self) -> None:
        self._writer.close()

    def _summary(self, step: int, values: Sequence[Summary.Value]) -> None:
        self._write(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def _write(self, event: Event) -> None:
        self._writer.write(event.SerializeToString())
        self._writer.flush()


def write_epoch(log: EventLog, message: EpochDone, labels: np.ndarray) -> None:
    """Write an epoch's figures, curves and confusion on the validation images with `labels` int [N]."""
    epoch = message.figures.epoch
    log.scalars(epoch, message.figures.scalars())
    for name, task in binary_tasks(labels, message.probabilities).items():
        log.pr_curve(epoch, name, task)
    log.image(epoch, "confusion", confusion_picture(confusion_counts(labels, message.probabilities)))


def grid(images: np.ndarray) -> np.ndarray:
    """One picture uint8 [rows, columns] with the images uint8 [N, H, W] side by side."""
    count, height, width = images.shape
    columns = int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    sheet = np.full((rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP), 255, np.uint8)
    for number, image in enumerate(images):
        top, left = (number // columns) * (height + _GAP), (number % columns) * (width + _GAP)
        sheet[top : top + height, left : left + width] = image
    return sheet


def confusion_picture(counts: np.ndarray) -> np.ndarray:
    """Counts int [truth, found] as a picture uint8 [H, W, 3]; the shade is the share of the row."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    # Without pyplot, so without its global state and choice of a display.
    figure = Figure(figsize=(4.2, 4.2), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        ink = "white" if share > 0.6 else "black"
        axes.text(column, row, f"{counts[row, column]}\n{share:.0%}", color=ink, ha="center", va="center")
    axes.set_xticks(range(len(CLASSES)), CLASSES)
    axes.set_yticks(range(len(CLASSES)), CLASSES)
    axes.set(xlabel="found", ylabel="truth")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _curve(task: BinaryScores) -> np.ndarray:
    """The input of TensorBoard's PR curves, float32 [6, THRESHOLDS].

    Its rows are true and false positives, true and false negatives, precision and recall.
    """
    above = task.scores[None, :] >= np.linspace(0, 1, THRESHOLDS)[:, None]
    true_positives = (above & task.truth).sum(axis=1)
    false_positives = (above & ~task.truth).sum(axis=1)
    true_negatives = (~task.truth).sum() - false_positives
    false_negatives = task.truth.sum() - true_positives
    precision = true_positives / np.maximum(true_positives + false_positives, 1)
    recall = true_positives / max(int(task.truth.sum()), 1)
    rows = (true_positives, false_positives, true_negatives, false_negatives, precision, recall)
    return np.stack(rows).astype(np.float32)

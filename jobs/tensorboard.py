"""TensorBoard events, written by the driver without TensorFlow: figures, pictures and curves."""

import io
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np

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

"""What TensorBoard shows of a training: figures and curves of each epoch, and the images as a step sees them."""

from typing import Any, Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jobs.tensorboard import EventLog
from pneumonia_core.findings import bacterial_share, p_pneumonia
from pneumonia_core.labels import BACTERIAL, CLASSES, NORMAL

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

"""How far scores move when a picture is changed in ways that change no lung."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from pneumonia_core.bootstrap import measure, patient_resamples
from pneumonia_core.findings import Thresholds, finding_labels, p_pneumonia
from pneumonia_core.images import decode, read_picture, to_square
from pneumonia_core.labels import CLASSES, NORMAL
from pneumonia_core.measures import ranking_measures

# Of classes whose median aspects differ by less there is nothing to swap.
MIN_ASPECT_RATIO: Final = 1.01
RESAMPLES: Final = 1000

Change = Callable[[Image.Image, int, float], Image.Image]


@dataclass(frozen=True)
class Perturbation:
    """One way to change a grey picture. `change` gets the picture, the side of the square that the network
    sees, and the aspect (width / height) to aim at; `quality` re-encodes it as JPEG instead."""

    name: str
    label: str
    change: Change | None = None
    quality: int | None = None
    aims_at_aspect: bool = False


def _blurred(picture: Image.Image, size: int, aspect: float) -> Image.Image:
    # One pixel of what the network sees, whatever the size of the source.
    return picture.filter(ImageFilter.GaussianBlur((picture.width / size, picture.height / size)))


def _brightened(picture: Image.Image, size: int, aspect: float, *, factor: float) -> Image.Image:
    return picture.point([min(255, round(level * factor)) for level in range(256)])


def _rotated(picture: Image.Image, size: int, aspect: float, *, degrees: float) -> Image.Image:
    return picture.rotate(degrees, Image.Resampling.BICUBIC)


def _stretched(picture: Image.Image, size: int, aspect: float) -> Image.Image:
    wider = (aspect * picture.height / picture.width) ** 0.5
    return picture.resize(
        (max(1, round(picture.width * wider)), max(1, round(picture.height / wider))),
        Image.Resampling.BICUBIC,
    )


def _cut(picture: Image.Image, size: int, aspect: float) -> Image.Image:
    width = min(picture.width, max(1, round(picture.height * aspect)))
    height = min(picture.height, max(1, round(picture.width / aspect)))
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))


PERTURBATIONS: Final = (
    Perturbation("jpeg_q50", "encoded as JPEG, quality 50", quality=50),
    Perturbation("jpeg_q75", "encoded as JPEG, quality 75", quality=75),
    Perturbation("jpeg_q95", "encoded as JPEG, quality 95", quality=95),
    Perturbation("blurred", "blurred by a pixel of the network’s", _blurred),
    Perturbation("brighter_10", "10 % brighter", partial(_brightened, factor=1.1)),
    Perturbation("darker_10", "10 % darker", partial(_brightened, factor=0.9)),
    Perturbation("rotated_left_3", "rotated by 3° to the left", partial(_rotated, degrees=3)),
    Perturbation("rotated_right_3", "rotated by 3° to the right", partial(_rotated, degrees=-3)),
    Perturbation(
        "aspect_stretched", "stretched to the other class’s median aspect", _stretched, aims_at_aspect=True
    ),
    Perturbation("aspect_cut", "cut to the other class’s median aspect", _cut, aims_at_aspect=True),
)


def perturbed_squares(data: bytes, size: int, aspect: float | None) -> npt.NDArray[np.uint8]:
    """What the network sees of an image as it is and after each perturbation: uint8 [1 + P, size, size].

    The source is encoded anew at its full size; all else is done to it as the decoder gives it, so that nothing but
    the change itself sets it apart. Then it goes through the image contract. Without an `aspect` to aim at, the
    perturbations of the aspect are left out (`perturbations`). Raises RejectedImage.
    """
    whole, decoded = read_picture(data), read_picture(data, size)
    changed = [
        _encoded(whole, one.quality, size) if one.quality else _changed(decoded, one, size, aspect or 1.0)
        for one in perturbations(aspect)
    ]
    return np.stack([to_square(decoded, size), *changed])


def perturbations(aspect: float | None) -> list[Perturbation]:
    """Those that can be done with this aspect to aim at."""
    return [one for one in PERTURBATIONS if aspect is not None or not one.aims_at_aspect]


def _encoded(picture: Image.Image, quality: int, size: int) -> np.ndarray:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return decode(buffer.getvalue(), size)


def _changed(picture: Image.Image, perturbation: Perturbation, size: int, aspect: float) -> np.ndarray:
    assert perturbation.change is not None
    return to_square(perturbation.change(picture, size, aspect), size)


def balanced_sample(labels: npt.ArrayLike, count: int, seed: int = 0) -> npt.NDArray[np.int64]:
    """Indices, sorted, of up to `count` images: half of them normal, of the others as many bacterial as viral,
    where there are enough of each."""
    truth = np.asarray(labels)
    rng = np.random.default_rng(seed)
    wanted = dict(zip(range(len(CLASSES)), (count // 2, count // 4, count // 4), strict=True))
    chosen = [rng.permutation(np.flatnonzero(truth == label))[:number] for label, number in wanted.items()]
    return np.sort(np.concatenate(chosen))


def swapped_aspects(
    ill: npt.NDArray[np.bool_], widths: npt.ArrayLike, heights: npt.ArrayLike
) -> dict[bool, float] | None:
    """The median aspect of the other class, by whether an image shows pneumonia; None where both classes have
    the same, or one is absent. Sizes are those of the sources, NaN where unknown."""
    aspects = np.asarray(widths, np.float64) / np.asarray(heights, np.float64)
    known = np.isfinite(aspects)
    if not (known & ill).any() or not (known & ~ill).any():
        return None
    medians = {sick: float(np.median(aspects[known & (ill == sick)])) for sick in (False, True)}
    if max(medians.values()) / min(medians.values()) < MIN_ASPECT_RATIO:
        return None
    return {sick: medians[not sick] for sick in medians}


def robustness(
    labels: npt.ArrayLike,
    patients: npt.ArrayLike,
    probabilities: npt.NDArray[np.float32],
    done: Sequence[Perturbation],
    thresholds: Thresholds,
    aspects: Mapping[bool, float] | None = None,
    bootstrap: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """What each perturbation did, ready for json.dump.

    `probabilities` float32 [N, 1 + P, 3] are of the images as they are and after each perturbation in `done`;
    `labels` int [N] index CLASSES. Of p_pneumonia, each of `rows` has `auroc_change` (a measure: value and
    95 % interval over resamples of the patients), `mean_change` and `p99_change` (mean and 99th percentile of
    |change|), `shift` (the mean change by class, null without images, and of all `pneumonia`),
    `shift_difference` (pneumonia's less normal's), and `findings_changed`, a share of the images.
    """
    truth = np.asarray(labels, np.int64)
    patient_index = np.unique(np.asarray(patients), return_inverse=True)[1].reshape(-1)
    totals = [p_pneumonia(probabilities[:, column]) for column in range(1 + len(done))]
    found = [finding_labels(probabilities[:, column], thresholds) for column in range(1 + len(done))]
    aurocs = _resampled_aurocs(totals, truth, patient_index, bootstrap, seed)
    return {
        "images": len(truth),
        "images_by_class": {name: int((truth == label).sum()) for label, name in enumerate(CLASSES)},
        "auroc": measure(aurocs[0]),
        "median_aspect": None if aspects is None else {"normal": aspects[True], "pneumonia": aspects[False]},
        "rows": [
            {
                "name": perturbation.name,
                "label": perturbation.label,
                "auroc_change": measure(aurocs[column] - aurocs[0]),
                **_changes(totals[column].astype(np.float64) - totals[0], truth),
                "findings_changed": float((found[column] != found[0]).mean()),
            }
            for column, perturbation in enumerate(done, 1)
        ],
    }


def _resampled_aurocs(
    totals: Sequence[npt.NDArray[np.float32]],
    truth: npt.NDArray[np.int64],
    patient_index: npt.NDArray[np.int64],
    bootstrap: int,
    seed: int,
) -> list[npt.NDArray[np.float64]]:
    """Of each column the AUROC of the data and of every resample, the same resamples for all."""
    blocks = [
        [ranking_measures(total, truth != NORMAL, weights)["auroc"] for total in totals]
        for weights, _ in patient_resamples(truth, patient_index, bootstrap, seed)
    ]
    return [np.concatenate(column) for column in zip(*blocks, strict=True)]


def _changes(change: npt.NDArray[np.float64], truth: npt.NDArray[np.int64]) -> dict[str, Any]:
    shift = {name: _mean(change[truth == label]) for label, name in enumerate(CLASSES)}
    shift["pneumonia"] = _mean(change[truth != NORMAL])
    both = shift["pneumonia"] is not None and shift["normal"] is not None
    return {
        "mean_change": float(np.abs(change).mean()),
        "p99_change": float(np.quantile(np.abs(change), 0.99)),
        "shift": shift,
        "shift_difference": shift["pneumonia"] - shift["normal"] if both else None,  # type: ignore[operator]
    }


def _mean(values: npt.NDArray[np.float64]) -> float | None:
    return float(values.mean()) if len(values) else None

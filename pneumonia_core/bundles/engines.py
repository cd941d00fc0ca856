"""What an engine is: the exported network behind one call, its scores, and the report of how exact it is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from pneumonia_core.errors import Remedy

# The engines that every bundle is written with, and those that are added to a bundle.
ENGINES: Final = ("openvino", "tensorflow")
INT8_ENGINE: Final = "openvino-int8"
ONNX_ENGINE: Final = "onnxruntime"
# What is added to a bundle so that its engine `tensorflow` computes in float16 on GPUs.
FLOAT16_GRAPH: Final = "tensorflow-float16"
INT8: Final = "int8"
# What each engine computes in on CPUs that have it; parity is measured in all of these. float16 is the
# network for GPUs, computed as they would; TensorFlow's is not in every bundle.
CPU_PRECISIONS: Final = {
    "openvino": ("bfloat16", "float32"),
    INT8_ENGINE: (INT8,),
    "tensorflow": ("bfloat16", "float32", "float16"),
    ONNX_ENGINE: ("float32", "float16"),
}
# How the paths of an engine's files in a bundle begin.
ENGINE_FILES: Final = {
    "openvino": "openvino/model.",
    INT8_ENGINE: "openvino/model_int8.",
    "tensorflow": "saved_model/",
    ONNX_ENGINE: "onnx/",
}
FLOAT16_FILES: Final = "saved_model_float16/"
# A feature map has more channels than a picture.
PICTURE_CHANNELS: Final = 3
# Images per batch where nothing else is asked for. A GPU is filled by more.
BATCH_SIZE: Final = 32
GPU_BATCH_SIZE: Final = 128
MAX_AUROC_DIFFERENCE: Final = 0.002
MIN_FINDINGS_AGREEMENT: Final = 0.995
# Of fewer held-back images, one finding that differs is more than that.
LEAST_HELD_BACK: Final = 200
# Rounding decides about images near the threshold, so a few may differ.
MIN_DOMAIN_AGREEMENT: Final = 0.98


@dataclass(frozen=True)
class GpuLibrary:
    """What an engine reaches GPUs through: its name in words, and what to do where it sees none."""

    name: str
    remedy: Remedy


# The engines that also compute on GPUs.
GPU_ENGINES: Final = {
    "tensorflow": GpuLibrary("TensorFlow", Remedy.INSTALL_GPU),
    ONNX_ENGINE: GpuLibrary("ONNX Runtime", Remedy.INSTALL_ONNX_GPU),
}


@dataclass(frozen=True)
class Scores:
    """An engine's output for B images.

    `probabilities` float32 [B, 3] are in the order of CLASSES. `domain` are domain scores float32 [B], None
    where the bundle has no domain guard.
    """

    probabilities: np.ndarray
    domain: np.ndarray | None


class Engine(Protocol):
    """A loaded network: Scores for images uint8 [B, H, W], for any B."""

    name: str
    precision: str

    def __call__(self, images: np.ndarray) -> Scores: ...


@dataclass(frozen=True)
class EngineReport:
    """How an exported engine compares, in one precision, with the float32 Keras model on validation images.

    The difference for bacterial or viral is None where the images do not show both kinds, and in bundles of
    version 0.1.0. `images_per_s` is that of the machine that wrote the bundle.
    """

    precision: str
    images_per_s: float
    auroc_difference: float
    findings_agreement: float
    largest_difference: float
    domain_agreement: float | None = None
    auroc_bacterial_difference: float | None = None

    @property
    def findings_agree(self) -> bool:
        """Whether the probabilities pass; the domain scores are left out."""
        return (
            self.auroc_difference <= MAX_AUROC_DIFFERENCE
            and (self.auroc_bacterial_difference or 0.0) <= MAX_AUROC_DIFFERENCE
            and self.findings_agreement >= MIN_FINDINGS_AGREEMENT
        )

    @property
    def parity_passed(self) -> bool:
        in_domain = self.domain_agreement is None or self.domain_agreement >= MIN_DOMAIN_AGREEMENT
        return self.findings_agree and in_domain


# The reports of an engine, by precision.
Reports = Mapping[str, EngineReport]


def best_report(reports: Mapping[str, EngineReport]) -> EngineReport:
    """Of an engine's reports by precision the fastest that passed parity; where none did, that of float32."""
    passed = [report for report in reports.values() if report.parity_passed]
    if passed:
        return max(passed, key=lambda report: report.images_per_s)
    return reports.get("float32") or next(iter(reports.values()))


def passed_precisions(reports: Mapping[str, EngineReport]) -> tuple[str, ...]:
    """The precisions in which an engine passed parity, by its reports; the fastest comes first."""
    passed = [report for report in reports.values() if report.parity_passed]
    names = [report.precision for report in sorted(passed, key=lambda report: -report.images_per_s)]
    if "bfloat16" in names and "float32" not in reports:
        # Version 0.1.0 did not measure float32 where bfloat16 had passed. It is what parity compares with.
        names.append("float32")
    return tuple(names)


def files_prefix(engine: str, precision: str) -> str:
    """How the paths of the files in a bundle begin that the engine needs to compute in this precision."""
    return FLOAT16_FILES if (engine, precision) == ("tensorflow", "float16") else ENGINE_FILES[engine]


def score_in_batches(
    images: np.ndarray,
    score_batch: Callable[[np.ndarray], dict[str, np.ndarray]],
    batch_size: int = BATCH_SIZE,
) -> Scores:
    """Scores of images uint8 [B, H, W] for any B, computed in batches of `batch_size`.

    The last batch is padded: with one shape, a score never depends on the number of other images.
    `score_batch` gives `probabilities` [batch_size, 3] and, where the network has a domain guard, `domain`.
    """
    probabilities: list[np.ndarray] = []
    domain: list[np.ndarray] = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        count = len(batch)
        if count < batch_size:
            padding = np.zeros((batch_size - count, *batch.shape[1:]), np.uint8)
            batch = np.concatenate([batch, padding])
        outputs = score_batch(np.ascontiguousarray(batch))
        probabilities.append(np.array(outputs["probabilities"][:count], np.float32))
        if "domain" in outputs:
            domain.append(np.array(outputs["domain"][:count], np.float32).reshape(count))
    if not probabilities:
        return Scores(np.zeros((0, 3), np.float32), None)
    return Scores(np.concatenate(probabilities), np.concatenate(domain) if domain else None)

"""How well a bundle's domain score tells validation images from everything but a child's upright chest X-ray.

python tests/bench/domain_guard.py --model BUNDLE --data KERMANY [--adults FOLDER]
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support.images.strangers import strangers  # noqa: E402

from pneumonia_core.bundles.bundle import open_bundle  # noqa: E402
from pneumonia_core.bundles.choice import load_engine  # noqa: E402
from pneumonia_core.datasets.labelled import read_labelled  # noqa: E402
from pneumonia_core.datasets.split import split_training  # noqa: E402
from pneumonia_core.imaging.decode import decode  # noqa: E402
from pneumonia_core.phantoms.radiograph import phantom  # noqa: E402

COUNT = 100


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--adults", type=Path, help="Folder of films of adults.")
    options = parser.parse_args()
    bundle = open_bundle(options.model)
    engine = load_engine(bundle, "openvino", "float32")
    assert bundle.domain is not None, "the bundle has no domain guard"

    def score(images: np.ndarray) -> np.ndarray:
        domain = engine(images).domain
        assert domain is not None
        return domain

    size = bundle.image_size
    validation = read(
        [Path(i.uri.removeprefix("file://")) for i in split_training(read_labelled(options.data))[1]], size
    )
    familiar = score(validation)
    threshold = bundle.domain.threshold
    print(f"validation: {len(familiar)} images, {np.mean(familiar > threshold):.1%} flagged")
    groups = {
        **strangers(size, COUNT),
        "synthetic X-rays": np.stack([phantom(n % 3, 9000 + n, 1, (size, size)) for n in range(COUNT)]),
        "inverted": 255 - validation,
        "upside down": validation[:, ::-1],
        "turned": validation.transpose(0, 2, 1),
    }
    if options.adults:
        groups["adult films"] = read(sorted(options.adults.glob("*.jpg")), size)
    for name, images in groups.items():
        strange = score(np.ascontiguousarray(images))
        truth = np.repeat([0, 1], [len(familiar), len(strange)])
        auroc = roc_auc_score(truth, np.concatenate([familiar, strange]))
        print(
            f"{name:20} {len(strange):4} images   AUROC {auroc:.4f}   "
            f"{np.mean(strange > threshold):.1%} flagged"
        )


def read(files: list[Path], size: int) -> np.ndarray:
    return np.stack([decode(file.read_bytes(), size) for file in files])


if __name__ == "__main__":
    main()

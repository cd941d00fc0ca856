"""Training speed under Ray Train against the same step in a plain loop of one process, on the same cores.

    python tests/bench/train_throughput.py [--images 1280] [--network resnet18] [--workers 1,2] [--rounds 3]
        [--precision mixed_bfloat16]

All sides train the same Learner in the same precision from the same weights, on the same synthetic X-rays
with the same augmentation, prepared by a thread. They take turns; a ratio is that of a round.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]


def main() -> None:
    options = _options()
    if sys.dont_write_bytecode:
        sys.exit("PYTHONDONTWRITEBYTECODE is set: every process compiles again. Unset it.")
    if options.write_weights is not None:
        write_weights(options, Path(options.write_weights))
        return
    if options.plain is not None:
        print(json.dumps(plain_images_per_s(options, Path(options.plain))))
        return
    workers = [int(count) for count in options.workers.split(",")]
    ratios: dict[int, list[float]] = {count: [] for count in workers}
    with tempfile.TemporaryDirectory() as folder:
        data, weights = Path(folder) / "data", Path(folder) / "start.keras"
        _write_images(data, options.images)
        _in_a_process("--write-weights", weights)
        for number in range(options.rounds):
            plain = _in_a_process("--plain", data)
            print(f"round {number + 1}: plain loop {plain:.1f} images/s", flush=True)
            for count in workers:
                models = Path(folder) / f"models{number}-{count}"
                under_ray = ray_images_per_s(options, data, weights, models, count)
                ratios[count].append(under_ray / plain)
                print(f"  {count} worker(s) {under_ray:.1f} images/s, {under_ray / plain:.2f}", flush=True)
    for count, each in ratios.items():
        print(f"{count} worker(s): {statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f})")


def plain_images_per_s(options: argparse.Namespace, data: Path) -> float:
    """Images/s of the steps of the last epochs of a plain loop, the first step left out."""
    import time

    import tensorflow as tf

    cores = len(os.sched_getaffinity(0))
    tf.config.threading.set_intra_op_parallelism_threads(cores)
    tf.config.threading.set_inter_op_parallelism_threads(max(2, cores))
    from jobs.training.worker.batches import prefetched
    from pneumonia_core.datasets.labelled import read_labelled
    from pneumonia_core.datasets.split import split_training
    from pneumonia_core.imaging.decode import decode
    from pneumonia_core.networks.classifier import build_classifier
    from pneumonia_core.storage.ranges import read_file
    from pneumonia_core.training.augment import draw, reencode_some
    from pneumonia_core.training.learner import Learner, TrainingBatch
    from pneumonia_core.training.loss import ClassWeights
    from pneumonia_core.training.recipe import Recipe

    recipe = Recipe(options.network, image_size=options.image_size, precision=options.precision)
    training, _ = split_training(read_labelled(str(data)))
    images = np.stack([decode(read_file(i.uri), recipe.image_size) for i in training])
    labels = np.array([i.label for i in training], np.int32)
    steps = len(images) // recipe.batch_size
    classifier = build_classifier(recipe.network, recipe.image_size)
    learner = Learner(
        recipe, classifier.get_weights(), options.train_from, ClassWeights.balanced(labels), steps
    )
    rng = np.random.default_rng(0)

    def batches():
        for _ in range(options.epochs):
            order = rng.permutation(len(images))
            for step in range(steps):
                rows = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
                drawn = draw(rng, recipe.batch_size, recipe.image_size)
                yield TrainingBatch(reencode_some(images[rows], rng), labels[rows], drawn)

    started, done = 0.0, -1
    for batch in prefetched(batches()):
        float(learner.step(batch))
        done += 1
        started = started or time.perf_counter()
    return done * recipe.batch_size / (time.perf_counter() - started)


def ray_images_per_s(
    options: argparse.Namespace, data: Path, weights: Path, models: Path, workers: int
) -> float:
    """Images/s of the same under Ray Train: the mean over the epochs, as `pneumonia train` gives it."""
    command = [sys.executable, "-m", "jobs.train", "--data", data, "--models", models]
    command += ["--network", options.network, "--weights", weights, "--train-from", options.train_from]
    command += ["--image-size", options.image_size, "--workers", workers, "--epochs", options.epochs]
    command += ["--precision", options.precision, "--no-int8"]
    done = subprocess.run([str(c) for c in command], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1])["images_per_s"])


def write_weights(options: argparse.Namespace, file: Path) -> None:
    """Random weights of the network, from which every side starts."""
    import keras

    from pneumonia_core.networks.classifier import build_classifier

    keras.utils.set_random_seed(0)
    build_classifier(options.network, options.image_size).save(file)
    print(0.0)


def _in_a_process(flag: str, value: Path) -> float:
    command = [sys.executable, __file__, *sys.argv[1:], flag, str(value)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def _write_images(data: Path, count: int) -> None:
    from pneumonia_core.phantoms.data_sets import write_labelled

    write_labelled(data, count // 6, 2, size=(256, 300), test_fraction=0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1280)
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--train-from", default="layer3")
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2)
    # Not `auto`: a training of so few images does not time what is faster.
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--plain", help=argparse.SUPPRESS)
    parser.add_argument("--write-weights", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()

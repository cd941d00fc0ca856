"""Makes written-by-004466f.tar.xz: files of commit 004466f that later versions open and resume.

    git worktree add /tmp/checkout-004466f 004466f
    cd /tmp/checkout-004466f
    PYTHONPATH=.:tests/jobs python PATH/OF/make.py PATH/OF/written-by-004466f.tar.xz

Use a Python that has the project's dependencies. Only commands of that checkout write the files: a training
that ends with a bundle, an evaluation, two nights of scoring, a third night that is killed when some chunks
have parts, and a training that is killed after its first epoch. All files are under ROOT, and must be there
again when they are used: the table, the runs and the settings of a training hold whole paths.

The network is the real ResNet-18 at its full width, and nearly all of its weights are zero. Only the first
few channels of each stage are alive. The others get no gradient and stay exactly zero in training, so
hundreds of megabytes pack into some hundred kilobytes.
"""

import datetime
import fcntl
import io
import json
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from processes import kill_with_descendants

from pneumonia_core.phantoms import write_archive, write_labelled

COMMIT = "004466f"
ROOT = Path("/tmp/pneumonia-004466f")
CHECKOUT = Path.cwd()
SIZE = (64, 80)
# Width of each stage from the stem on, and how many of its channels are alive.
STAGES = ((64, 4), (64, 4), (128, 4), (256, 4), (512, 4))
NIGHTS = ("2026-01-30", "2026-01-31", "2026-02-01")
FINISHED = ("--epochs", "2", "--seed", "1")
# Patience asks for the best epoch's weights in each checkpoint.
UNFINISHED = ("--epochs", "3", "--seed", "2", "--patience", "3")
# Chunks of the last night whose parts are never written.
STALLED = (3, 5)
# Bundles refer to each other's bytes over some hundred megabytes; a reader needs as much memory.
DICTIONARY = 64 << 20
# What TensorBoard draws is read by no command, and the name of its file is that of the machine.
LEFT_OUT = ("models/tensorboard",)
GIVE_UP_S = 1200


def main(output: Path) -> None:
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout
    if not head.startswith(COMMIT):
        raise SystemExit(f"run this in a checkout of {COMMIT}, not of {head.strip()}")
    # The tests unpack the archive to the same place, and hold the same lock.
    with ROOT.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(ROOT, ignore_errors=True)
        try:
            commands = write_all()
            (ROOT / "commands.json").write_text(json.dumps(commands, indent=2) + "\n")
            pack(output)
        finally:
            shutil.rmtree(ROOT, ignore_errors=True)
    print(f"{output}: {output.stat().st_size:,} bytes")


def write_all() -> dict[str, list[str]]:
    """Everything beneath ROOT; the commands that wrote it, for a test to give again."""
    ROOT.mkdir()
    np.savez(ROOT / "trunk.npz", **trunk())
    write_labelled(ROOT / "data", 6, seed=4, size=SIZE)
    trained = train_command(FINISHED)
    bundle = run(trained)["bundle"]
    evaluated = [
        *("evaluate", "--model", bundle, "--data", str(ROOT / "data"), "--output", str(ROOT / "evaluation")),
        *("--precision", "float32", "--bootstrap", "10", "--robustness", "0", "--num-cpus", "2"),
    ]
    run(evaluated)
    keep_only(ROOT / "evaluation", "evaluation.json")
    nights = [score_command(bundle, night) for night in NIGHTS]
    for change, night in zip((first_night, second_night), nights, strict=False):
        change(ROOT / "xrays")
        run(night)
    third_night(ROOT / "xrays")
    stall = ";".join(f"part.before@{chunk}=sleep:{2 * GIVE_UP_S}" for chunk in STALLED)
    kill_when(is_stuck_in_chunks, nights[-1], PNEUMONIA_FAILPOINTS=stall)
    interrupted = train_command(UNFINISHED)
    write_undisturbed(interrupted)
    # Ray Train looks for checkpoints every two seconds; the next epoch ends in that time.
    kill_when(has_a_checkpoint, interrupted, RAY_TRAIN_HEALTH_CHECK_INTERVAL_S="0.1")
    if len(list((ROOT / "models" / "training").glob("*/checkpoint_*/"))) != 1:
        raise SystemExit("the training was quicker than its killing: begin again")
    return {
        "trained": trained,
        "evaluated": evaluated,
        "first night": nights[0],
        "second night": nights[1],
        "killed night": nights[2],
        "killed training": interrupted,
    }


def trunk() -> dict[str, Any]:
    """Folded weights of ResNet-18 under torchvision's names, as `train --weights` takes them."""
    rng = np.random.default_rng(0)
    weights: dict[str, Any] = {}

    def convolution(
        name: str, side: int, given: tuple[int, int], made: tuple[int, int], gain: float = 1.0
    ) -> None:
        kernel = np.zeros((side, side, given[0], made[0]), np.float32)
        deviation = gain * (2 / (side * side * given[1])) ** 0.5
        alive = rng.normal(0, deviation, (side, side, given[1], made[1]))
        # Few different numbers pack better.
        kernel[:, :, : given[1], : made[1]] = alive.round(2)
        weights[f"{name}.weight"], weights[f"{name}.bias"] = kernel, np.zeros(made[0], np.float32)

    convolution("conv1", 7, (3, 3), STAGES[0])
    for number in range(1, 5):
        before, here = STAGES[number - 1], STAGES[number]
        for block in range(2):
            name = f"layer{number}.{block}"
            if number > 1 and block == 0:
                convolution(f"{name}.downsample.0", 1, before, here)
            convolution(f"{name}.conv1", 3, here if block else before, here)
            # What blocks add to one another must not grow from block to block.
            convolution(f"{name}.conv2", 3, here, here, gain=0.3)
    return weights


def first_night(archive: Path) -> None:
    """Twenty files, five of them broken, and a zip."""
    write_archive(archive, 20, seed=5, broken=True, size=SIZE)
    with zipfile.ZipFile(archive / "sent.zip", "w") as file:
        for number, content in enumerate(pictures(6, 3)):
            file.writestr(zipfile.ZipInfo(f"sent/{number}.jpeg", (2026, 1, 30, 0, 0, 0)), content)
    set_times(archive, NIGHTS[0])


def second_night(archive: Path) -> None:
    """Three images more, one changed, one gone."""
    first, second = sorted(archive.glob("*/cxr_*.jpeg"))[:2]
    changed, *added = pictures(7, 4)
    first.write_bytes(changed)
    second.unlink()
    add(archive / "2024-03-06", added)
    set_times(archive, NIGHTS[1], first, *(archive / "2024-03-06").iterdir())


def third_night(archive: Path) -> None:
    """Twenty-two images more, four of them in a tar."""
    content = pictures(8, 22)
    add(archive / "2024-03-07", content[4:])
    with tarfile.open(archive / "late.tar", "w", format=tarfile.GNU_FORMAT) as file:
        for number, picture in enumerate(content[:4]):
            member = tarfile.TarInfo(f"late/{number}.jpeg")
            member.size = len(picture)
            file.addfile(member, io.BytesIO(picture))
    set_times(archive, NIGHTS[2], archive / "late.tar", *(archive / "2024-03-07").iterdir())


def pictures(seed: int, count: int) -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        write_archive(Path(folder), count, seed=seed, size=SIZE)
        return [path.read_bytes() for path in sorted(Path(folder).glob("*/*"))]


def add(folder: Path, content: list[bytes]) -> None:
    folder.mkdir()
    for number, picture in enumerate(content):
        (folder / f"cxr_{number:06d}.jpeg").write_bytes(picture)


def set_times(archive: Path, date: str, *files: Path) -> None:
    """Whole seconds, as a tar keeps them: an image's version has them to the nanosecond."""
    noon = int(datetime.datetime.fromisoformat(f"{date}T12:00:00+00:00").timestamp())
    for path in files or archive.rglob("*"):
        os.utime(path, (noon, noon))


def train_command(more: tuple[str, ...]) -> list[str]:
    return [
        *("train", "--data", str(ROOT / "data"), "--models", str(ROOT / "models"), "--network", "resnet18"),
        *("--weights", str(ROOT / "trunk.npz"), "--image-size", "64", "--batch-size", "8", "--workers", "1"),
        *("--precision", "float32", "--ages", "1,5", *more),
    ]


def score_command(bundle: str, night: str) -> list[str]:
    return [
        *("score", str(ROOT / "xrays"), "--model", bundle, "--results", str(ROOT / "results")),
        *("--precision", "float32", "--chunk-size", "4", "--num-cpus", "2", "--date", night),
    ]


def write_undisturbed(command: list[str]) -> None:
    """What the training that is killed would have come to: the figures of its epochs."""
    with tempfile.TemporaryDirectory() as models:
        bundle = Path(run([models if part == str(ROOT / "models") else part for part in command])["bundle"])
        history = json.loads((bundle / "bundle.json").read_text())["training"]["history"]
    (ROOT / "undisturbed.json").write_text(json.dumps(history, indent=2) + "\n")


def is_stuck_in_chunks() -> bool:
    """Whether the scoring has a part of each chunk but those STALLED, and is at these."""
    runs = ROOT / "results" / "runs"
    done = {int(path.stem) for path in runs.glob("*/parts/*.parquet")}
    begun = {int(path.name.split("-")[0]) for path in runs.glob("*/begun/*")}
    return begun == {*STALLED} and done == set(range(max(STALLED))) - begun


def has_a_checkpoint() -> bool:
    """Whether Ray Train has written down that there is one."""
    return any(
        folder.name in (folder.parent / "checkpoint_manager_snapshot.json").read_text()
        for folder in (ROOT / "models" / "training").glob("*/checkpoint_*/")
        if (folder.parent / "checkpoint_manager_snapshot.json").exists()
    )


def kill_when(condition: Callable[[], bool], command: list[str], **environment: str) -> None:
    """Run a command until the condition holds, then kill it and its children at once, as a machine dies."""
    for _ in range(3):
        process = start(command, **environment)
        try:
            if comes_to(condition, process):
                return
        finally:
            kill(process)
    raise SystemExit(f"{command} did not come to where it was to be killed")


def comes_to(condition: Callable[[], bool], process: subprocess.Popen[str]) -> bool:
    deadline = time.monotonic() + GIVE_UP_S
    while process.poll() is None and time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def kill(process: subprocess.Popen[str]) -> None:
    # The number of a process that has ended may be another one's by now.
    if process.poll() is None:
        kill_with_descendants(process.pid)
    process.communicate()


def run(command: list[str]) -> dict[str, str]:
    """Run a command of the checkout to its end, again where it fails. Returns the result that it prints."""
    for _ in range(3):
        process = start(command)
        try:
            output, errors = process.communicate(timeout=GIVE_UP_S)
        except subprocess.TimeoutExpired:
            kill(process)
            raise
        print(errors, end="", flush=True)
        if not process.returncode:
            return dict(json.loads(output.splitlines()[-1]))
    raise SystemExit(f"{command} ended with {process.returncode}")


def start(command: list[str], **environment: str) -> subprocess.Popen[str]:
    print("+ pneumonia", *command, flush=True)
    inherited = {k: v for k, v in os.environ.items() if k not in ("PYTHONDONTWRITEBYTECODE", "RAY_ADDRESS")}
    return subprocess.Popen(
        [sys.executable, "-m", "jobs.cli", *command],
        cwd=CHECKOUT,
        env={**inherited, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def keep_only(folder: Path, name: str) -> None:
    for path in folder.iterdir():
        if path.name != name:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def pack(output: Path) -> None:
    """All beneath ROOT, with nothing of who packed it."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": DICTIONARY}]
    names = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*"))
    # The models are large where they are unpacked, and stand last.
    names = sorted(
        (name for name in names if not name.startswith(LEFT_OUT)), key=lambda n: n.startswith("models")
    )
    with (
        lzma.open(output, "wb", filters=filters) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as file,
    ):
        for path, name in ((ROOT / name, name) for name in names):
            member = file.gettarinfo(path, name)
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.mtime = int(member.mtime)
            if member.isfile():
                with path.open("rb") as content:
                    file.addfile(member, content)
            else:
                file.addfile(member)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())

"""`pneumonia score` beside what a user would write instead, by turns, in one go.

    python tests/bench/compare.py --model BUNDLE --images N --source FOLDER [--pairs 3]
        [--peers keras,daft,ray_data] [--float32] [--daft-packages FOLDER] [--output FILE.md]

FOLDER holds JPEGs at their original size. The archive is N of them and of copies, all different in bytes and
pixels. In each pair every contestant scores a quarter of it and then all of it, each time in a process of its
own; the order changes from pair to pair. All start with one short run that is not counted. Peers use the
bundle's own model.keras. Rates of engines that `pneumonia score` measures stay for its next runs.

The table is written after each pair: FILE (build/comparison.md) in Markdown, and JSON beside it. Run it on a
machine that does nothing else.
"""

import argparse
import dataclasses
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from comparison.archive import write_archive, write_part
from comparison.contestants import (
    PEERS,
    ROOT,
    Contestant,
    Probabilities,
    has_daft,
    ours,
    peer,
    read_files,
)
from comparison.machine import busy_share, machine
from comparison.page import markdown
from comparison.process import CommandFailed, Ended, run_command
from comparison.summary import Ceilings, Difference, Measurement, Ratio, Sizes, Summary

COMPARISON = Path(__file__).parent / "comparison"
FEW = 16  # images of the runs that are not counted


@dataclasses.dataclass(frozen=True)
class Bench:
    """Where the archive and its parts are, and the probabilities of the float32 Keras model."""

    bundle: Path
    folder: Path
    sizes: Sizes
    expected: Probabilities

    @property
    def whole(self) -> Path:
        return self.folder / "whole"

    @property
    def part(self) -> Path:
        return self.folder / "part"


def main() -> None:
    options = _options()
    if sys.dont_write_bytecode:
        sys.exit("PYTHONDONTWRITEBYTECODE is set: every process compiles everything again. Unset it.")
    facts: dict[str, object] = {**machine(), "model": options.model.name}
    contestants = _contestants(options)
    with tempfile.TemporaryDirectory(dir=options.work) as temporary:
        bench = _prepare(options, Path(temporary))
        contestants = _that_work(contestants, bench)
        measured: dict[str, list[Measurement]] = {each.name: [] for each in contestants}
        busy = []
        for pair in range(options.pairs):
            busy.append(f"{busy_share():.0%}")
            first = pair % len(contestants)
            for contestant in contestants[first:] + contestants[:first]:
                measured[contestant.name].append(_measure(contestant, bench))
                _say(pair + 1, measured[contestant.name][-1], bench.sizes)
            facts["pairs"] = pair + 1
            facts["busy before each pair, with other work"] = ", ".join(busy)
            _write(options.output, facts, bench.sizes, contestants, measured)
    print(options.output.read_text())


def _contestants(options: argparse.Namespace) -> list[Contestant]:
    names = [name for name in options.peers.split(",") if name]
    if unknown := set(names) - set(PEERS):
        sys.exit(f"--peers: {', '.join(sorted(unknown))} is none of {', '.join(PEERS)}.")
    if "daft" in names and not has_daft(options.daft_packages):
        print("daft is not installed (README.md beside this file says how): it is left out.", flush=True)
        names.remove("daft")
    us = [ours(options.model)] + ([ours(options.model, "--precision", "float32")] if options.float32 else [])
    packages = {"daft": options.daft_packages}
    return us + [peer(name, options.model, packages.get(name)) for name in names]


def _prepare(options: argparse.Namespace, folder: Path) -> Bench:
    sizes = Sizes(options.images, options.images // 4)
    archive = write_archive(options.source, folder / "whole", sizes.whole)
    write_part(archive, folder / "part", sizes.part)
    write_part(archive, folder / "few", min(FEW, sizes.part))
    print(f"{sizes.whole:,} images written; the float32 Keras model scores them", flush=True)
    script, out = COMPARISON / "reference.py", folder / "reference"
    command = [sys.executable, "-P", str(script), str(options.model), str(archive), str(out)]
    run_command(command, folder, PYTHONPATH=str(ROOT), CUDA_VISIBLE_DEVICES="")
    return Bench(options.model, folder, sizes, read_files(out))


def _that_work(contestants: Sequence[Contestant], bench: Bench) -> list[Contestant]:
    """Those whose run over a few images succeeds; it also brings programs and libraries into memory."""
    working = []
    for contestant in contestants:
        print(f"{contestant.name} scores a few images", flush=True)
        try:
            _score(contestant, bench.folder / "few", bench)
        except CommandFailed as error:
            if contestant.is_ours:
                raise
            print(f"{contestant.name} is left out: {error}", flush=True)
        else:
            working.append(contestant)
    return working


def _measure(contestant: Contestant, bench: Bench) -> Measurement:
    part, _ = _score(contestant, bench.part, bench)
    whole, found = _score(contestant, bench.whole, bench)
    difference = Difference.of(found, bench.expected)
    measurement = Measurement(
        contestant.name, whole.seconds, part.seconds, len(found), whole.peak_pss_bytes, difference
    )
    if not contestant.is_ours:
        return measurement
    result = json.loads(whole.output.strip().splitlines()[-1])
    engine, precision = result["engine"], result["precision"]
    ceilings = _ceilings(bench, engine, precision)
    return dataclasses.replace(
        measurement, engine=f"{engine} {precision}", ceilings=ceilings, limit=result["timings"]["why"]
    )


def _score(contestant: Contestant, images: Path, bench: Bench) -> tuple[Ended, Probabilities]:
    """`pneumonia score` finds the rates of engines that its earlier runs measured, as a second night does."""
    out, rates = bench.folder / "out", bench.folder / "rates"
    if contestant.is_ours and rates.is_dir():
        shutil.copytree(rates, out / "rates")
    try:
        return contestant.score(images, out), contestant.read(out)
    finally:
        if contestant.is_ours and (out / "rates").is_dir():
            shutil.copytree(out / "rates", rates, dirs_exist_ok=True)
        shutil.rmtree(out, ignore_errors=True)


def _ceilings(bench: Bench, engine: str, precision: str) -> Ceilings:
    script = COMPARISON / "ceilings.py"
    command = [sys.executable, "-P", str(script), str(bench.bundle), str(bench.part), engine, precision]
    ended = run_command(command, bench.folder, PYTHONPATH=str(ROOT))
    return Ceilings(**json.loads(ended.output.strip().splitlines()[-1]))


def _write(
    output: Path,
    facts: dict[str, object],
    sizes: Sizes,
    contestants: Sequence[Contestant],
    measured: dict[str, list[Measurement]],
) -> None:
    summaries = [Summary.of(measured[each.name], sizes) for each in contestants]
    ratios = [
        Ratio.of(measured[us.name], measured[them.name], sizes)
        for us in contestants
        for them in contestants
        if us.is_ours and not them.is_ours
    ]
    document = {
        **facts,
        "sizes": dataclasses.asdict(sizes),
        "contestants": [dataclasses.asdict(each) for each in summaries],
        "ratios": [dataclasses.asdict(each) for each in ratios],
        "measurements": [dataclasses.asdict(each) for values in measured.values() for each in values],
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(markdown(facts, sizes, summaries, ratios))
    output.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n")


def _say(pair: int, measurement: Measurement, sizes: Sizes) -> None:
    print(
        f"pair {pair}: {measurement.contestant}: {sizes.part:,} images {measurement.part_s:.1f} s, "
        f"{sizes.whole:,} images {measurement.whole_s:.1f} s, {measurement.rows:,} rows",
        flush=True,
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, type=_path, help="bundle")
    parser.add_argument("--images", required=True, type=int, help="images of the archive, 8 or more")
    parser.add_argument("--source", required=True, type=_path, help="folder with JPEGs at original size")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument(
        "--float32", action="store_true", help="`pneumonia score --precision float32` as well"
    )
    parser.add_argument("--daft-packages", type=_path, help="folder that Daft was installed into")
    parser.add_argument("--work", type=_path, help="folder for the archive, which is removed at the end")
    parser.add_argument("--output", type=_path, default=ROOT / "build" / "comparison.md")
    options = parser.parse_args()
    if options.images < 8 or options.pairs < 1:
        parser.error("give 8 images and 1 pair, or more")
    return options


def _path(text: str) -> Path:
    return Path(text).resolve()


if __name__ == "__main__":
    main()

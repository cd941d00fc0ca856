"""Files of commit 004466f are opened, used and resumed: a bundle, a table, a killed night, a killed training.

make.py made the archive beside this file, and says what is in it. It is used where it was made, under ROOT,
because the table, the runs and the settings of a training hold whole paths. Everything goes through the
commands, as for someone who installs this version over that one.
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

PACKED = Path(__file__).with_name("written-by-004466f.tar.xz")
REPOSITORY = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").exists())
ROOT = Path("/tmp/pneumonia-004466f")
ARCHIVE, RESULTS = ROOT / "xrays", ROOT / "results"
# Chunks of the killed night that have a part; of the others nothing is known but that two of them were begun.
FINISHED_CHUNKS = [0, 1, 2, 4]
LISTED_BY_NIGHT = (23, 25, 47)
SCORES = ["p_normal", "p_bacterial", "p_viral", "domain_score"]
Commands = dict[str, list[str]]


@pytest.fixture(scope="module")
def commands() -> Iterator[Commands]:
    """Unpacks the whole archive under ROOT; the commands that wrote it.

    Two sessions on one machine take turns. The lock ends with its process; leftovers of a killed session are
    removed.
    """
    with ROOT.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            unpack()
            yield json.loads((ROOT / "commands.json").read_text())
        finally:
            shutil.rmtree(ROOT, ignore_errors=True)


@pytest.fixture
def nights(commands: Commands) -> Commands:
    """The same, with the images and the table as they were when the third night was killed."""
    unpack("xrays", "results")
    return commands


def unpack(*folders: str) -> None:
    """Unpack these folders of the archive again, or all. The small ones come first in it."""
    for folder in folders or ("",):
        shutil.rmtree(ROOT / folder, ignore_errors=True)
    ROOT.mkdir(mode=0o700, exist_ok=bool(folders))
    with tarfile.open(PACKED) as file:
        # All are found first: a member after the other would have the archive inflated again and again.
        members = file.getmembers()
        wanted = [member for member in members if not folders or member.name.partition("/")[0] in folders]
        file.extractall(ROOT, wanted, filter="data")


def pneumonia(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The command as a user runs it."""
    inherited = {k: v for k, v in os.environ.items() if k not in ("PYTHONDONTWRITEBYTECODE", "RAY_ADDRESS")}
    return subprocess.run(
        [sys.executable, "-m", "jobs.cli", *map(str, arguments)],
        cwd=REPOSITORY,
        env=inherited,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


def succeed(*arguments: object) -> tuple[dict[str, Any], str]:
    """What the command gives as its result, and what it says to people."""
    done = pneumonia(*arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def changed(command: list[str], **options: object) -> list[str]:
    """The command with other values for these options of it."""
    new = list(command)
    for name, value in options.items():
        new[new.index(f"--{name}") + 1] = str(value)
    return new


def bundle_of(commands: Commands) -> Path:
    night = commands["killed night"]
    return Path(night[night.index("--model") + 1])


def table() -> pa.Table:
    return DeltaTable(str(RESULTS / "scores")).to_pyarrow_table()


def the_killed_run() -> Path:
    (marker,) = (RESULTS / "runs" / ".unfinished").iterdir()
    return RESULTS / "runs" / marker.name


def test_bundle_is_whole_and_is_opened(commands, tmp_path):
    bundle = bundle_of(commands)
    manifest = (bundle / "bundle.json").read_bytes()
    document = json.loads(manifest)
    files = {file.relative_to(bundle).as_posix(): file for file in bundle.rglob("*") if file.is_file()}
    assert files.keys() == {"bundle.json", *document["files"]}
    for name, expected in document["files"].items():
        assert hashlib.sha256(files[name].read_bytes()).hexdigest() == expected, name
    pinned = f"{bundle}@sha256:{hashlib.sha256(manifest).hexdigest()}"
    plan, _ = succeed("score", ARCHIVE, "--model", pinned, "--results", tmp_path / "results", "--dry-run")
    assert plan["to_score"] == LISTED_BY_NIGHT[-1]


def test_finished_training_still_tells_its_bundle(commands):
    result, said = succeed(*commands["trained"], "--resume")
    assert "is finished" in said
    assert Path(result["bundle"]) == bundle_of(commands)
    assert bundle_of(commands).name == f"resnet18-{result['model_id']}"


@pytest.mark.slow
def test_bundle_is_measured_as_it_was(commands, tmp_path):
    succeed(*changed(commands["evaluated"], output=tmp_path))
    then, now = (
        json.loads((folder / "evaluation.json").read_text()) for folder in (ROOT / "evaluation", tmp_path)
    )
    for name in ("model_id", "images", "patients", "thresholds", "prevalence", "domain"):
        assert now[name] == then[name], name
    assert now["three_class"]["confusion"] == then["three_class"]["confusion"]
    for task, measured in then["tasks"].items():
        assert now["tasks"][task]["auroc"]["value"] == pytest.approx(measured["auroc"]["value"]), task
    page = (tmp_path / "evaluation.html").read_text()
    assert "a class activation map" in page


def test_table_of_two_nights_is_read(nights, tmp_path):
    runs = succeed("runs", RESULTS, "--json")[0]["runs"]
    assert [(run["run_date"], run["state"]) for run in runs] == [
        ("2026-01-30", "committed"), ("2026-01-31", "committed"), ("2026-02-01", "scoring"),
    ]  # fmt: skip
    counts = [
        [run["counts"].get(name) for name in ("listed", "scored", "rejected", "unchanged")] for run in runs
    ]
    assert counts == [[23, 18, 5, 0], [25, 4, 0, 21], [None] * 4]
    shown = pneumonia("runs", RESULTS)
    assert all(run["run_id"] in shown.stdout for run in runs), shown.stderr
    latest, _ = succeed("latest", RESULTS, "--output", tmp_path / "latest.parquet")
    rows = pq.read_table(tmp_path / "latest.parquet").to_pylist()
    assert latest["rows"] == len(rows) == len({row["image_uri"] for row in rows}) == LISTED_BY_NIGHT[1]
    # The second night changed an image and missed another one.
    assert sum(row["run_id"] == runs[1]["run_id"] for row in rows) == 4
    gone = {row["image_uri"] for row in table().to_pylist()} - {row["image_uri"] for row in rows}
    assert [Path(uri).name for uri in gone] == ["cxr_000002.jpeg"]


def test_killed_night_is_resumed_and_the_next_one_is_incremental(nights):
    run = the_killed_run()
    parts = sorted((run / "parts").glob("*.parquet"))
    assert [int(part.stem) for part in parts] == FINISHED_CHUNKS
    kept = pa.concat_tables([pq.read_table(part) for part in parts])
    before = table()

    result, said = succeed(*nights["killed night"])
    assert f"resuming {run.name}" in said
    # Version 3 of the table has the column `precision` besides.
    assert (result["run_id"], result["version"]) == (run.name, 4)
    counts = [result[name] for name in ("listed", "scored", "rejected", "unchanged", "deferred")]
    assert counts == [LISTED_BY_NIGHT[2], 22, 0, 25, 0]
    after = table()
    assert after.num_rows == before.num_rows + 22
    assert len({(row["image_uri"], row["run_id"]) for row in after.to_pylist()}) == after.num_rows
    # The time of scoring is among the columns: these rows are those of the parts, not scored again.
    columns = [name for name in after.column_names if name in kept.column_names]
    assert {*SCORES, "image_sha256", "scored_at", "run_id"} <= {*columns}
    assert not missing_from(after, kept, columns)
    assert not missing_from(after, before, before.column_names)
    uris = {row["image_uri"] for row in kept.to_pylist()}
    of_parts, scored_now = set(), set()
    for row in after.to_pylist():
        if row["run_id"] == run.name:
            (of_parts if row["image_uri"] in uris else scored_now).add(row["precision"])
    assert (of_parts, scored_now) == ({None}, {result["precision"]})
    assert not list((RESULTS / "runs" / ".unfinished").iterdir())

    # A later night, in which some images of the first one come a second time under other names.
    known = [row for row in before.to_pylist() if row["image_uri"].endswith(".jpeg") and row["p_normal"]]
    copies = ARCHIVE / "2024-03-08"
    copies.mkdir()
    for row in known:
        source = Path(row["image_uri"].removeprefix("file://"))
        if source.exists() and hashlib.sha256(source.read_bytes()).hexdigest() == row["image_sha256"]:
            shutil.copyfile(source, copies / f"{source.parent.name} {source.name}")
    copied = len(list(copies.iterdir()))
    assert copied > 10
    later, _ = succeed(*changed(nights["killed night"], date="2026-02-02"))
    counts = [later[name] for name in ("listed", "scored", "rejected", "unchanged", "deferred")]
    assert counts == [47 + copied, copied, 0, 47, 0]
    scores = {row["image_sha256"]: [row[name] for name in SCORES] for row in known}
    for row in table().to_pylist():
        if row["run_id"] == later["run_id"]:
            assert [row[name] for name in SCORES] == pytest.approx(scores[row["image_sha256"]], abs=1e-3)


def missing_from(whole: pa.Table, some: pa.Table, columns: list[str]) -> set[tuple[Any, ...]]:
    """The rows of `some` that are not in `whole`."""
    rows, wanted = ({tuple(row.values()) for row in t.select(columns).to_pylist()} for t in (whole, some))
    return wanted - rows


def test_killed_training_is_not_gone_on_with_by_another_recipe(commands):
    """The loss is another now, so the rest of its epochs would not be what its first one began."""
    (state,) = (ROOT / "models" / "training").glob("*/checkpoint_*/state.json")
    run = state.parents[1].name
    for named in ((), ("--name", run)):
        refused = pneumonia(*commands["killed training"], "--resume", *named)
        assert refused.returncode == 2, refused.stderr
        assert f"the training {run} in " in refused.stderr
        assert "was begun by an earlier version" in refused.stderr
    assert state.exists()

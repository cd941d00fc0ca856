"""Twenty nights of faults of every kind, against a plain Python model of the table."""

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import boto3
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from support.buckets import BUCKET, Proxy, s3_server, using
from support.clusters import Rules
from support.hospitals import Archive, BucketPlace, FolderPlace, Row, differences
from support.processes import kill_with_descendants
from support.runs_killed import start
from support.scoring import last_json, pneumonia
from support.tiny_bundles import write_tiny_bundle

from pneumonia_core.results.table import storage_options
from pneumonia_core.storage.location import open_location
from pneumonia_core.system.failpoints import VARIABLE

NIGHTS = int(os.environ.get("SOAK_NIGHTS", "20"))
FAULTY_ROUNDS = 2
ROUNDS = 14
PROMOTED, ROLLED_BACK = 8, 15
DRIVER = [
    "save.before@", "save.after@", "plan.before", "plan.after", "save.before@scoring", "merge.before",
    "merge.after", "save.before@staged", "save.after@staged", "commit.before", "commit.after",
    "save.after@committed", "cleanup",
]  # fmt: skip
WORKER = ["part.before=kill", "part.after=kill", "decode=abort", "part.before=enospc", "part.before=broken"]
RESULTS = f"s3://{BUCKET}/results"


class Faults:
    """Starts commands and does something to them; counts what it did."""

    def __init__(
        self, rng: random.Random, proxy: Proxy, cluster, rules: Rules, mount: Path, folder: Path
    ) -> None:
        self.done: Counter[str] = Counter()
        self._rng, self._proxy, self._cluster, self._rules = rng, proxy, cluster, rules
        self._mount, self._folder = mount, folder
        self._kinds: list[Callable[[list[subprocess.Popen[str]]], None]] = [
            self._driver_killed, self._terminated, self._throttled, self._cut, self._node_lost,
            self._mount_gone, self._nothing, self._nothing, self._nothing,
        ]  # fmt: skip

    def settings(self) -> dict[str, str]:
        """The environment of a command: by half it dies at a failpoint, and so may a worker."""
        if self._rng.random() < 0.5:
            rule = self._rng.choice(WORKER)
            self._rules.set(f"{rule},once:{self._folder / str(sum(self.done.values()))}")
            self.done[f"worker: {rule}"] += 1
        if self._rng.random() < 0.6:
            place = self._rng.choice(DRIVER)
            self.done[f"driver killed at {place}"] += 1
            return {VARIABLE: f"{place}=kill", "PYTHONFAULTHANDLER": "1"}
        return {"PYTHONFAULTHANDLER": "1"}

    def happen(self, processes: list[subprocess.Popen[str]]) -> None:
        time.sleep(self._rng.uniform(1, 6))
        self._rng.choice(self._kinds)(processes)
        # What the network does passes; what the workers do happens once.
        time.sleep(self._rng.uniform(0.5, 4))
        self._proxy.fail(None)

    def end(self) -> None:
        self._proxy.fail(None)
        self._rules.set()

    def _nothing(self, processes: list[subprocess.Popen[str]]) -> None:
        pass

    def _driver_killed(self, processes: list[subprocess.Popen[str]]) -> None:
        if processes[0].poll() is None:
            self.done["driver killed"] += 1
            kill_with_descendants(processes[0].pid)

    def _terminated(self, processes: list[subprocess.Popen[str]]) -> None:
        if processes[0].poll() is None:
            self.done["SIGTERM"] += 1
            processes[0].terminate()

    def _throttled(self, processes: list[subprocess.Popen[str]]) -> None:
        self.done["throttled"] += 1
        self._proxy.fail("GET|PUT|HEAD|POST", rate=0.5, refusal=None, most=3)

    def _cut(self, processes: list[subprocess.Popen[str]]) -> None:
        self.done["connections cut"] += 1
        self._proxy.fail("GET|PUT", rate=0.3, most=2, always_cut=True)

    def _node_lost(self, processes: list[subprocess.Popen[str]]) -> None:
        self.done["node lost"] += 1
        self._cluster.replace_node()

    def _mount_gone(self, processes: list[subprocess.Popen[str]]) -> None:
        self.done["mount gone"] += 1
        away = self._mount.with_name("away")
        self._mount.rename(away)
        time.sleep(self._rng.uniform(1, 4))
        away.rename(self._mount)


class Nodes:
    """A head without CPUs and two nodes of one."""

    def __init__(self, rules: Rules) -> None:
        from ray.cluster_utils import Cluster

        self._variables = {VARIABLE: rules.variable}
        self._cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
        )
        self._nodes = [self._add() for _ in range(2)]
        self.address = self._cluster.address

    def _add(self):
        return self._cluster.add_node(num_cpus=1, env_vars=self._variables)

    def replace_node(self) -> None:
        self._cluster.remove_node(self._nodes.pop(0), allow_graceful=False)
        for _ in range(3):
            try:
                self._nodes.append(self._add())
                return
            except Exception:  # noqa: BLE001 - a busy machine starts no node in Ray's half minute
                time.sleep(5)

    def shutdown(self) -> None:
        self._cluster.shutdown()


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_twenty_nights_of_faults(tmp_path, capsys):
    rng = random.Random(int(os.environ.get("SOAK_SEED", "1")))
    (tmp_path / "mount" / "c").mkdir(parents=True)
    rules = Rules(tmp_path / "rules")
    rules.set()
    models = [write_tiny_bundle(tmp_path / "models", threshold) for threshold in (0.5, 0.6)]
    alias = tmp_path / "models" / "production"
    alias.symlink_to(models[0].path)
    with s3_server() as endpoint, Proxy(endpoint) as proxy, using(proxy.endpoint):
        boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket=BUCKET)
        archives = {
            "a": Archive(BucketPlace(endpoint, BUCKET, "a")),
            "b": Archive(BucketPlace(endpoint, BUCKET, "b")),
            "c": Archive(FolderPlace(tmp_path / "mount" / "c")),
        }
        nodes = Nodes(rules)
        try:
            faults = Faults(rng, proxy, nodes, rules, tmp_path / "mount", tmp_path)
            age, model = 1_000_000, models[0].model_id
            for night in range(1, NIGHTS + 1):
                for archive in archives.values():
                    age = archive.change(rng, age, new=24 if night == 1 else 5, changed=3)
                more = ["--rescore", "all"] if night == PROMOTED else []
                if night in (PROMOTED, ROLLED_BACK):
                    # A run of the old model is dead by then, and its rows are wanted.
                    arguments = command(archives["a"], alias, nodes.address, night)
                    killed = start(arguments, **{VARIABLE: "save.before@staged=kill"})
                    assert not ends_well(killed, 600)
                    archives["a"].night(model)
                    bundle = models[1] if night == PROMOTED else models[0]
                    alias.unlink()
                    alias.symlink_to(bundle.path)
                    model = bundle.model_id
                night_of_faults(night, archives, faults, rng, alias, nodes.address, more)
                for archive in archives.values():
                    archive.night(model)
                check(archives, model, tmp_path / f"latest-{night}.parquet", night)
                with capsys.disabled():
                    print(
                        f"\nnight {night}: {sum(faults.done.values())} faults, table and latest right",
                        flush=True,
                    )
        except AssertionError as error:
            error.add_note(f"after {faults.done}")
            raise
        finally:
            nodes.shutdown()
    assert sum(faults.done.values()) >= 5 * NIGHTS
    with capsys.disabled():
        print("\n".join(f"soak: {kind}: {count} times" for kind, count in sorted(faults.done.items())))


def command(archive: Archive, model: Path, address: str, night: int) -> list[object]:
    options = ["--model", model, "--results", RESULTS, "--address", address, "--date", f"2026-03-{night:02d}"]
    return ["score", archive.place.uri, *options, "--engine", "openvino", "--chunk-size", 8]


def night_of_faults(
    night: int,
    archives: dict[str, Archive],
    faults: Faults,
    rng: random.Random,
    alias: Path,
    address: str,
    more: list[str],
) -> None:
    """Each archive's command again until it ends well, side by side, and some of them twice at once."""
    open_archives = sorted(archives)
    for number in range(ROUNDS):
        faulty = number < FAULTY_ROUNDS
        names = rng.sample(open_archives, len(open_archives))
        if faulty and rng.random() < 0.3:
            faults.done["the same command twice"] += 1
            names.append(names[0])
        processes = []
        for name in names:
            variables = faults.settings() if faulty else {"PYTHONFAULTHANDLER": "1"}
            processes.append(start([*command(archives[name], alias, address, night), *more], **variables))
        if faulty:
            faults.happen(processes)
        ended_well = [ends_well(process, 600) for process in processes]
        faults.end()
        open_archives = [
            name
            for name in open_archives
            if not any(other == name and well for other, well in zip(names, ended_well, strict=True))
        ]
        if not open_archives:
            return
    raise AssertionError(f"night {night}: {open_archives} did not end in {ROUNDS} rounds")


def ends_well(process: subprocess.Popen[str], timeout_s: float) -> bool:
    try:
        _, errors = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        # Python says where each thread is.
        process.send_signal(signal.SIGABRT)
        _, errors = process.communicate()
        raise AssertionError(f"a command hangs:\n{errors[-6000:]}") from None
    assert "Traceback" not in errors, errors
    # SIGTERM ends a command as any other before its work begins and after it.
    expected = {0, 1, -signal.SIGKILL, -signal.SIGTERM}
    if "no such file or folder" in errors:
        # A command that finds no archive at its start cannot tell a mount that is away from a wrong name.
        expected.add(2)
    assert process.returncode in expected, (process.returncode, errors[-3000:])
    return process.returncode == 0


def check(archives: dict[str, Archive], model: str, output: Path, night: int) -> None:
    """The table and `latest` are what the model of them says."""
    place = open_location(f"{RESULTS}/scores")
    table = DeltaTable(place.uri, storage_options=storage_options(place)).to_pyarrow_table()
    assert set(table["status"].to_pylist()) == {"scored"}
    expected = [row for archive in archives.values() for row in archive.rows]
    assert not (wrong := differences(_rows(table), expected)), f"night {night}, table:\n{wrong}"
    done = pneumonia("latest", RESULTS, "--output", output)
    assert done.returncode == 0, done.stderr
    live = [row for archive in archives.values() for row in archive.latest(model)]
    assert not (wrong := differences(_rows(pq.read_table(output)), live)), f"night {night}, latest:\n{wrong}"
    assert last_json(done)["rows"] == len(live)


def _rows(table) -> list[Row]:
    columns = [table[name].to_pylist() for name in ("image_uri", "image_sha256", "model_id")]
    return list(zip(*columns, strict=True))

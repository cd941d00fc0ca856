"""Random nights against a plain Python model of the table."""

import contextlib
import dataclasses
import json
import shutil
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from PIL import Image
from support.runs_killed import start
from support.scoring import pneumonia, rows, score, scoring_request

from pneumonia_core.phantoms.radiograph import phantom
from pneumonia_core.runs.registry import RunAtWork
from pneumonia_core.system.failpoints import VARIABLE

NAMES = st.integers(0, 11)
# The session's Ray rejects such names when it reads them (conftest.py), with a reason that may pass.
RETRYABLE, FINAL = "unreadable", "empty"


@dataclasses.dataclass
class Row:
    name: str
    version: int
    model: str
    status: str
    attempt: int


class Nights(RuleBasedStateMachine):
    """Images are changed by day; each night the table must be what the model of it says."""

    bundle = None
    address = None
    all_nights = 0

    @initialize()
    def begin(self):
        self.folder = Path(tempfile.mkdtemp(prefix="nights-"))
        (self.folder / "archive").mkdir()
        self.versions: dict[str, tuple[int, str]] = {}
        self.clock = 0
        self.expected: list[Row] = []
        self.models = [self.bundle.model_id]
        self.any_model: dict[str, bool] = {}
        self.nights = 0
        for number in range(6):
            self.put(number, "good")

    def teardown(self):
        shutil.rmtree(self.folder, ignore_errors=True)

    def put(self, number: int, kind: str) -> None:
        name = f"{'unreadable-' if kind == 'unreadable' else ''}{number:02d}.png"
        self.drop(number)
        path = self.folder / "archive" / name
        if kind == "empty":
            path.write_bytes(b"")
        else:
            Image.fromarray(phantom(number % 3, number, self.clock, (48, 48))).save(path)
        self.clock += 1
        import os

        os.utime(path, ns=(self.clock * 10**9, self.clock * 10**9))
        self.versions[name] = (self.clock, {"good": "scored", "empty": FINAL, "unreadable": RETRYABLE}[kind])

    def drop(self, number: int) -> None:
        for name in (f"{number:02d}.png", f"unreadable-{number:02d}.png"):
            (self.folder / "archive" / name).unlink(missing_ok=True)
            self.versions.pop(name, None)

    @rule(number=NAMES, kind=st.sampled_from(["good", "good", "empty", "unreadable"]))
    def add_or_change(self, number, kind):
        self.put(number, kind)

    @rule(number=NAMES)
    def remove(self, number):
        if len(self.versions) > 1:
            self.drop(number)

    @rule(retry=st.booleans(), limit=st.sampled_from([None, None, 3]))
    def night(self, retry, limit):
        self.expect(retry, limit)
        score(self.folder / "r", self.request(retry_rejected=retry, limit=limit))

    @rule(rescore=st.sampled_from(["all", "none"]))
    def night_with_a_new_model(self, rescore):
        if len(self.models) == 3 or not self.expected:
            return
        self.models.append(f"{len(self.models):016d}")
        self.any_model[self.models[-1]] = rescore == "none"
        self.expect(False, None)
        score(self.folder / "r", self.request(rescore=rescore))

    @rule(
        place=st.sampled_from(["plan.after", "save.after@staged", "commit.before", "commit.after", "cleanup"])
    )
    def night_that_is_killed(self, place):
        """Killed at a failpoint in a process of its own, then resumed here."""
        self.expect(False, None)
        work = self.request()
        if work.model_id == self.bundle.model_id:
            pneumonia(*self.command(), **{VARIABLE: f"{place}=kill"})
        score(self.folder / "r", work)

    @rule()
    def night_with_another_run_at_once(self):
        """The same order twice: the other has planned before this one begins, which then does nothing."""
        work = self.request()
        if work.model_id != self.bundle.model_id:
            return
        self.expect(False, None)
        other = start(self.command(), **{VARIABLE: "save.before@staged=sleep:3"})
        while other.poll() is None and not self.planned():
            time.sleep(0.05)
        with contextlib.suppress(RunAtWork):
            score(self.folder / "r", work)
        _, errors = other.communicate(timeout=120)
        assert other.returncode == 0, errors
        if list((self.folder / "r" / "runs" / ".unfinished").iterdir()):
            score(self.folder / "r", work)

    def planned(self) -> bool:
        runs = self.folder / "r" / "runs"
        # A name that begins with a dot is a file that is still being written.
        unfinished = [path.name for path in (runs / ".unfinished").glob("[!.]*")]
        records = [runs / name / "run.json" for name in unfinished]
        return any(json.loads(record.read_text())["listing_complete"] for record in records)

    def command(self):
        place = ["--model", self.bundle.path, "--results", self.folder / "r", "--address", self.address]
        options = ["--engine", "openvino", "--precision", "float32", "--chunk-size", 16]
        # Half of so few images may go, or be unreadable.
        options += ["--gate", "gone=off", "--gate", "read-rejected=off"]
        return ["score", self.folder / "archive", *place, *options]

    def request(self, **changes):
        self.nights += 1
        Nights.all_nights += 1
        return scoring_request(
            self.bundle, self.folder / "archive", **{"model_id": self.models[-1], **changes}
        )

    def expect(self, retry: bool, limit: int | None) -> None:
        model, scored = self.models[-1], 0
        for name in sorted(self.versions):
            version, outcome = self.versions[name]
            known = [
                row
                for row in self.expected
                if row.name == name
                and row.version == version
                and (self.any_model.get(model) or row.model == model)
            ]
            attempts = max((row.attempt for row in known), default=0)
            done = any(row.status == "scored" for row in known)
            if not retry:
                done = done or any(row.status == FINAL for row in known) or attempts >= 5
            if done or (limit is not None and scored == limit):
                continue
            scored += 1
            self.expected.append(Row(name, version, model, outcome, attempts + 1))

    @invariant()
    def table_is_what_the_model_says(self):
        if not getattr(self, "nights", 0):
            return
        actual = sorted(
            (
                Path(row["image_uri"]).name,
                int(row["image_version"].split("-")[1]) // 10**9,
                row["model_id"],
                row["reject_reason"] or row["status"],
                row["attempt"],
            )
            for row in rows(self.folder / "r").to_pylist()
        )
        assert actual == sorted((r.name, r.version, r.model, r.status, r.attempt) for r in self.expected)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_random_nights_agree_with_the_model(ray_here, tiny_bundle):
    Nights.bundle = tiny_bundle
    Nights.address = ray_here.get_runtime_context().gcs_address
    run_state_machine_as_test(
        Nights,
        settings=settings(
            max_examples=2,
            stateful_step_count=45,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )
    assert Nights.all_nights >= 30

"""The alias `production`: whole or not at all, one change at a time, and back to the one before."""

import hashlib
import itertools
import json
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.paths import REPOSITORY

from pneumonia_core.bundles.bundle import open_bundle
from pneumonia_core.bundles.production import ALIAS, HISTORY, list_bundles, promote, roll_back
from pneumonia_core.errors import InvalidInput, Remedy
from pneumonia_core.system.failpoints import VARIABLE

NAMES = ("a", "b", "c")


@pytest.fixture
def models(tiny_bundle, tmp_path) -> Path:
    """A folder with three bundles."""
    for name in NAMES:
        shutil.copytree(tiny_bundle.path, tmp_path / "models" / name)
    return tmp_path / "models"


def in_production(models: Path) -> str:
    return open_bundle(models / ALIAS).path.name


def test_promoted_bundle_is_in_production_until_it_is_rolled_back(models):
    for before, name in [(None, "a"), ("a", "b"), ("b", "c")]:
        assert promote(models, name).before == before
        assert in_production(models) == name
    assert [bundle.name for bundle in list_bundles(models) if bundle.in_production] == ["c"]
    for name in ("b", "a"):
        assert roll_back(models).bundle.path.name == in_production(models) == name
    with pytest.raises(InvalidInput, match="no bundle was in production before") as none:
        roll_back(models)
    assert none.value.remedy is Remedy.PROMOTE
    assert in_production(models) == "a"


def test_bundle_may_be_named_by_its_path_and_be_promoted_twice(models, monkeypatch):
    promote(models, str(models / "b"))
    monkeypatch.chdir(models)
    assert promote(Path(), "./b").before == "b"
    promote(Path(), "c")
    assert roll_back(models).bundle.path.name == "b"
    with pytest.raises(InvalidInput):
        roll_back(models)


def test_link_goes_with_the_folder(models):
    promote(models, "b")
    moved = models.rename(models.with_name("mounted elsewhere"))
    assert in_production(moved) == "b"


def test_only_a_whole_bundle_of_the_folder_is_promoted(models, tiny_bundle):
    promote(models, "a")
    (models / "b" / "openvino" / "model.xml").write_text("another network")
    with pytest.raises(InvalidInput, match=r"openvino/model\.xml differs"):
        promote(models, "b")
    for elsewhere in (str(tiny_bundle.path), "..", "a/openvino"):
        with pytest.raises(InvalidInput, match="is not in"):
            promote(models, elsewhere)
    with pytest.raises(InvalidInput, match="does not exist"):
        promote(models, "absent")
    assert in_production(models) == "a"
    assert promote(models, "c").before == "a"


def test_rollback_to_a_bundle_that_has_gone_leaves_the_present_one(models):
    promote(models, "a")
    promote(models, "b")
    shutil.rmtree(models / "a")
    with pytest.raises(InvalidInput, match="was in production before the present one, and has gone") as gone:
        roll_back(models)
    assert gone.value.remedy is Remedy.PROMOTE
    assert in_production(models) == "b"


def test_listing_tells_what_is_broken_and_what_production_lacks(models):
    (models / "b" / "bundle.json").write_text("{")
    (models / "no bundle").mkdir()
    promote(models, "c")
    listed = {bundle.name: bundle for bundle in list_bundles(models)}
    assert list(listed) == ["a", "b", "c"]
    assert listed["a"].problem is None
    assert listed["b"].bundle is None
    assert "Restore it" in listed["b"].problem
    shutil.rmtree(models / "c")
    lost = list_bundles(models)[-1]
    assert (lost.name, lost.in_production, lost.bundle) == ("c", True, None)
    assert "points to c" in lost.problem
    with pytest.raises(InvalidInput, match="cannot be read"):
        list_bundles(models / "absent")


def test_alias_that_is_no_link_is_left_alone(models):
    shutil.copytree(models / "a", models / ALIAS)
    for change in (lambda: promote(models, "b"), lambda: roll_back(models), lambda: list_bundles(models)):
        with pytest.raises(InvalidInput, match="is not a link"):
            change()
    assert open_bundle(models / ALIAS).path == models / ALIAS


def test_link_that_a_person_set_is_one_to_go_back_to(models):
    (models / ALIAS).symlink_to("a")
    promote(models, "b")
    (models / ALIAS).unlink()
    (models / ALIAS).symlink_to("c")
    promote(models, "a")
    assert [roll_back(models).bundle.path.name for _ in range(3)] == ["c", "b", "a"]


def test_removed_link_comes_back(models):
    promote(models, "a")
    (models / ALIAS).unlink()
    assert roll_back(models).before is None
    promote(models, "b")
    (models / ALIAS).unlink()
    assert [roll_back(models).bundle.path.name for _ in range(2)] == ["b", "a"]
    with pytest.raises(InvalidInput):
        roll_back(models)


def test_link_that_a_person_set_back_by_one_has_the_other_to_go_back_to(models):
    promote(models, "a")
    promote(models, "b")
    (models / ALIAS).unlink()
    (models / ALIAS).symlink_to("a")
    assert [roll_back(models).bundle.path.name for _ in range(2)] == ["b", "a"]


def test_bundle_may_be_pinned(models):
    pin = hashlib.sha256((models / "a" / "bundle.json").read_bytes()).hexdigest()
    assert promote(models, f"a@sha256:{pin}").bundle.path.name == in_production(models) == "a"
    with pytest.raises(InvalidInput, match="pinned"):
        promote(models, f"b@sha256:{'0' * 64}")
    assert in_production(models) == "a"


def test_link_that_a_person_set_back_loses_nothing_of_the_history(models):
    for name in NAMES:
        promote(models, name)
    (models / ALIAS).unlink()
    (models / ALIAS).symlink_to(models / "a")
    assert [roll_back(models).bundle.path.name for _ in range(3)] == ["c", "b", "a"]
    changes = [change["bundle"] for change in json.loads((models / HISTORY).read_text())["history"]]
    assert changes == ["a", "b", "c", "a", "c", "b", "a"]


def test_link_to_another_place_is_told_replaced_and_one_to_go_back_to(models, tmp_path):
    elsewhere = shutil.copytree(models / "b", tmp_path / "elsewhere" / "b")
    (models / ALIAS).symlink_to(elsewhere)
    assert [bundle.name for bundle in list_bundles(models) if bundle.bundle and bundle.in_production] == []
    assert str(elsewhere) in list_bundles(models)[-1].problem
    assert promote(models, "b").before == str(elsewhere)
    assert (models / ALIAS).readlink() == Path("b")
    assert roll_back(models).bundle.path == elsewhere


@pytest.mark.parametrize("target", ["absent/b", "/absent/b", ALIAS])
def test_link_that_leads_nowhere_is_replaced(models, target):
    (models / ALIAS).symlink_to(target)
    assert list_bundles(models)[-1].problem
    promote(models, "b")
    assert in_production(models) == "b"


@pytest.mark.parametrize(
    ("history", "said"),
    [
        ("[]", "To start over, delete it."),
        ('{"format_version": 1, "history": [{"bundle": 5}]}', "To start over, delete it."),
        ('{"format_version": 1, "history": [{"action": "", "bundle": "a", "at": ""}]}', "delete it"),
        ('{"format_version": 2, "history": [{"who": "a"}]}', "newer version"),
    ],
)
def test_history_that_cannot_be_read_is_told_and_keeps_the_present_bundle(models, history, said):
    promote(models, "a")
    (models / HISTORY).write_text(history)
    for change in (lambda: promote(models, "b"), lambda: roll_back(models)):
        with pytest.raises(InvalidInput, match=said):
            change()
    assert in_production(models) == "a"


def test_folder_of_bundles_may_hold_what_cannot_be_looked_into(models):
    (models / "lost+found").mkdir(mode=0)
    (models / ".writing-1").mkdir()
    shutil.copy(models / "a" / "bundle.json", models / ".writing-1")
    (models / ".production-1").symlink_to("a")
    assert [bundle.name for bundle in list_bundles(models)] == list(NAMES)


@pytest.mark.parametrize("place", ["s3://bucket/models", "file:///models", "absent"])
def test_place_that_is_no_folder_of_this_machine_is_refused(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    for change in (lambda: promote(Path(place), "b"), lambda: list_bundles(Path(place))):
        with pytest.raises(InvalidInput, match="cannot be read: it is not a"):
            change()
    assert not list(tmp_path.iterdir())


CHANGE = "import sys; from pathlib import Path; from pneumonia_core.bundles.production import *; "


@pytest.mark.parametrize("place", ["write", "production.link"])
@pytest.mark.parametrize(("action", "code"), [("kill", -9), ("enospc", 1)])
def test_change_that_is_cut_short_is_made_by_the_same_command(models, place, action, code):
    for name in NAMES:
        promote(models, name)
    for call, again in calls(models).items():
        before = in_production(models)
        assert cut_short(models, call, f"{place}@{HISTORY if place == 'write' else ALIAS}={action}") == code
        assert in_production(models) == before
        again()
        assert in_production(models) != before
    assert [roll_back(models).bundle.path.name for _ in range(2)] == ["b", "a"]


def test_change_whose_command_was_killed_after_it_was_made_counts(models):
    for name in NAMES:
        promote(models, name)
    for call, expected in zip(calls(models), ["b", "c"], strict=True):
        assert cut_short(models, call, f"production.made@{ALIAS}=kill") == -9
        assert in_production(models) == expected
    assert [roll_back(models).bundle.path.name for _ in range(2)] == ["b", "a"]


def calls(models: Path) -> dict:
    """Changes as text for another process, and made by this one."""
    return {
        "roll_back(Path(sys.argv[1]))": lambda: roll_back(models),
        "promote(Path(sys.argv[1]), 'c')": lambda: promote(models, "c"),
    }


def cut_short(models: Path, call: str, rules: str) -> int:
    """The exit code of a process that follows these failpoints."""
    command = [sys.executable, "-c", CHANGE + call, models]
    done = subprocess.run(command, cwd=REPOSITORY, env={VARIABLE: rules}, capture_output=True, check=False)
    return done.returncode


def test_changes_at_the_same_time_lose_none_and_readers_always_find_a_bundle(models):
    promote(models, "a")
    ended = threading.Event()

    def read() -> int:
        count = 0
        while not ended.is_set():
            open_bundle(models / ALIAS, only=frozenset())
            count += 1
        return count

    with ThreadPoolExecutor(5) as pool:
        reader = pool.submit(read)
        list(pool.map(lambda number: promote(models, NAMES[number % 3]), range(12)))
        ended.set()
        assert reader.result() > 0
    seen = [in_production(models)]
    while len(seen) < 50:
        try:
            seen.append(roll_back(models).bundle.path.name)
        except InvalidInput:
            break
    assert all(a != b for a, b in itertools.pairwise(seen))
    assert seen[-1] == "a"
    assert {*seen} == {*NAMES}

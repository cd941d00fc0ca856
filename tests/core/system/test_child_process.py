"""Work in child processes: answers, deaths and time limits, and children that do not start."""

import contextlib
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.children import deaf_child, risky_child

from pneumonia_core.errors import PneumoniaError, Remedy
from pneumonia_core.storage.errors import StorageUnavailable
from pneumonia_core.system.child_process import ChildPool, Crashed, TooSlow


@pytest.fixture
def pool():
    with contextlib.closing(ChildPool(risky_child.answer, 10)) as pool:
        yield pool


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def test_answer_comes_back_whatever_its_size_and_whatever_is_printed(pool):
    large = os.urandom(3_000_000)
    assert pool.ask(("echo", large)) == large
    assert pool.ask(("print", "from a library")) == "from a library"
    assert pool.ask(("echo", None)) is None


def test_child_is_kept_for_the_next_request(pool):
    assert pool.ask(("process", 0)) == pool.ask(("process", 0))


def test_requests_of_several_threads_are_at_work_at_once(pool):
    with ThreadPoolExecutor(3) as threads:
        assert len(set(threads.map(pool.ask, [("process", 1)] * 3))) == 3


def test_death_costs_one_request(pool):
    first = pool.ask(("process", 0))
    assert pool.ask(("exit", 3)) == Crashed()
    assert pool.ask(("process", 0)) not in (first, Crashed())


@pytest.mark.parametrize(
    "fault", [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE]
)
def test_signal_of_its_own_is_a_crash(pool, fault):
    assert pool.ask(("signal", fault)) == Crashed()


def test_child_killed_from_outside_while_it_works_is_started_again(pool, tmp_path):
    assert pool.ask(("killed at first", str(tmp_path / "killed"))) == "done"


def test_children_that_are_killed_each_time_are_the_machines_fault(pool):
    with pytest.raises(PneumoniaError, match="killed from outside") as raised:
        pool.ask(("signal", signal.SIGKILL))
    assert raised.value.remedy == Remedy.FREE_MEMORY


def test_crash_of_an_idle_child_is_no_request_s_fault(pool):
    child = pool.ask(("process", 0))
    os.kill(child, signal.SIGSEGV)
    time.sleep(0.2)
    assert pool.ask(("echo", 1)) == 1


@pytest.mark.timeout(60)
@pytest.mark.parametrize("lie", ["pickle", "undeclared", "too long"])
def test_answer_that_is_not_one_is_a_crash_and_runs_nothing(pool, tmp_path, lie):
    """A child that a stranger's bytes have taken over may say anything."""
    assert pool.ask((lie, str(tmp_path / "made"))) == Crashed()
    assert not (tmp_path / "made").exists()
    assert pool.ask(("echo", 1)) == 1


def test_child_imports_nothing_from_the_folder_that_a_user_is_in(pool, tmp_path, monkeypatch):
    for module in ("pickle", "json", "numpy", "dl"):
        (tmp_path / f"{module}.py").write_text(
            f"open('/proc/self/cwd/{module} ran', 'w'); raise SystemExit(9)"
        )
    monkeypatch.chdir(tmp_path)
    # `python -m` has the working folder there, and so has a worker of Ray.
    monkeypatch.setattr(sys, "path", [str(tmp_path), "", *sys.path])
    assert pool.ask(("import", "dl")) == "not found"
    assert pool.ask(("folder", None)) == "/"


@pytest.mark.timeout(60)
@pytest.mark.parametrize("request_", [("process", 300), ("begin an answer", 1_000_000)])
def test_limit_is_for_the_whole_answer(request_):
    with contextlib.closing(ChildPool(risky_child.answer, 0.5)) as pool:
        assert pool.ask(request_) == TooSlow(0.5)
        assert pool.ask(("echo", 1)) == 1


@pytest.mark.timeout(60)
def test_limit_is_for_a_request_that_no_one_reads(monkeypatch):
    monkeypatch.setenv("PNEUMONIA_TEST_DEAF", "1")
    with contextlib.closing(ChildPool(deaf_child.answer, 0.5)) as pool:
        assert pool.ask(b"x" * 10_000_000) == TooSlow(0.5)


def test_error_of_the_project_reaches_who_asked(pool):
    with pytest.raises(PneumoniaError, match="no room"):
        pool.ask(("raise", "no room"))
    assert pool.ask(("echo", 1)) == 1


def test_error_of_the_project_is_of_its_own_class_for_who_asked(pool):
    """What is done about one depends on it: a storage that is away costs no image."""
    with pytest.raises(StorageUnavailable) as raised:
        pool.ask(("storage", "the bucket is away"))
    assert (raised.value.text, raised.value.remedy) == ("the bucket is away", Remedy.WHEN_STORAGE_ANSWERS)


def test_child_that_does_not_start_is_an_error_and_not_left_behind(monkeypatch):
    before = children()
    with contextlib.closing(ChildPool(_not_of_a_module, 10)) as pool:
        with pytest.raises(PneumoniaError, match="did not start"):
            pool.ask(1)
        monkeypatch.setattr(sys, "executable", "/no/such/python")
        with pytest.raises(PneumoniaError, match="did not start"):
            pool.ask(1)
    assert children() <= before


def _not_of_a_module(request: int) -> int:
    return request


_not_of_a_module.__module__ = "no.such.module"


def test_closed_pool_leaves_no_process(pool):
    before = children()
    pool.ask(("echo", 1))
    pool.close()
    assert children() <= before

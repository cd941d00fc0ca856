"""A Ray session that begins while the command does other work."""

import threading

import pytest

from jobs.ray_runtime.session import SessionAhead
from pneumonia_core.errors import PneumoniaError


class Start:
    """Takes the place of `ray.init`: returns, or raises, when it may."""

    def __init__(self, monkeypatch, error=None):
        import ray

        self.may_end = threading.Event()
        self.thread = None
        self._error = error
        monkeypatch.setattr(ray, "init", self._init)
        monkeypatch.setattr(ray, "shutdown", self._shutdown)
        # Another test of this process may have started it.
        monkeypatch.setattr(ray, "is_initialized", lambda: False)

    def _init(self, **_):
        self.thread = threading.current_thread()
        self.may_end.wait()
        if self._error is not None:
            raise self._error

    def _shutdown(self):
        assert threading.current_thread() is self.thread


def test_command_goes_on_while_ray_starts_in_a_thread_that_lives_as_long_as_the_session(monkeypatch):
    """The processes of Ray are killed when the thread that has started them ends."""
    start = Start(monkeypatch)
    with SessionAhead(None, None) as session:
        start.may_end.set()
        session.wait()
        assert start.thread is not threading.current_thread()
        assert start.thread.is_alive()
    assert not start.thread.is_alive()


def test_command_that_waits_for_ray_learns_why_it_does_not_start(monkeypatch):
    start = Start(monkeypatch, Exception("The current node timed out during startup."))
    start.may_end.set()
    with SessionAhead(None, None) as session, pytest.raises(PneumoniaError, match="timed out during startup"):
        session.wait()


def test_command_that_must_stop_does_not_wait_for_ray(monkeypatch):
    start = Start(monkeypatch)

    def stop():
        start.may_end.set()
        raise InterruptedError

    with SessionAhead(None, None) as session, pytest.raises(InterruptedError):
        session.wait(stop)


@pytest.mark.parametrize("fails", [False, True])
def test_what_follows_the_connection_is_done_before_the_command_goes_on(monkeypatch, fails):
    start, done = Start(monkeypatch), []
    start.may_end.set()

    def connected():
        done.append(threading.current_thread())
        if fails:
            raise PneumoniaError("the cluster has gone")

    with SessionAhead(None, None, connected) as session:
        if fails:
            with pytest.raises(PneumoniaError, match="has gone"):
                session.wait()
        else:
            session.wait()
        assert done == [start.thread]

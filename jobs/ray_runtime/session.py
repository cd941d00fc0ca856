"""Starts or joins Ray for one job, without its console output."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Final, Self

from pneumonia_core.errors import PneumoniaError, Remedy
from pneumonia_core.system.scratch import ScratchFolder

# How often a command that waits for Ray looks whether it must stop.
_CHECK_S: Final = 0.1


@contextmanager
def ray_session(address: str | None = None, num_cpus: int | None = None) -> Iterator[None]:
    """Connect to the cluster at `address` or RAY_ADDRESS, or start Ray on this machine for the block.

    A process that is already connected keeps its connection, also after the block.

    Raises InvalidInput where no cluster answers at the address or Ray cannot write its files, and
    PneumoniaError where Ray does not start in time.
    """
    _set_environment()
    # Ray reads the environment when it is imported, and takes a second.
    import ray

    if ray.is_initialized():
        _quiet_ray_data()
        yield
        return
    from jobs.ray_runtime.connection import connect, start

    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(_empty_folder())
        if names_a_cluster(address):
            connect(address or os.environ["RAY_ADDRESS"], folder)
        else:
            start(num_cpus, folder)
            stack.enter_context(_alone_in_ray())
        _quiet_ray_data()
        try:
            with _ray_prints_to_stderr():
                yield
        finally:
            ray.shutdown()


class SessionAhead:
    """A `ray_session` that begins while the command does other work, and ends with its block.

    Ray's processes take seconds to start, for most of which this one has nothing to do for them. The session
    has a thread of its own from beginning to end: Ray's processes die with the thread that started them.
    `connected` is called there as soon as Ray can be used.
    """

    def __init__(
        self, address: str | None, num_cpus: int | None, connected: Callable[[], None] = lambda: None
    ) -> None:
        _set_environment()
        # Here and not in the thread: two threads that import at once take turns.
        import ray  # noqa: F401

        self._session = ray_session(address, num_cpus)
        self._connected = connected
        self._ready = threading.Event()
        self._ending = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._hold, name="ray", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ending.set()
        self._thread.join()

    def wait(self, check: Callable[[], None] = lambda: None) -> None:
        """Return once Ray can be used. Raises what `ray_session` raises, or `check`, called now and then."""
        while not self._ready.wait(_CHECK_S):
            check()
        if self._error is not None:
            raise self._error

    def _hold(self) -> None:
        try:
            with self._session:
                self._connected()
                self._ready.set()
                self._ending.wait()
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
            self._error = error
        finally:
            self._ready.set()


def _quiet_ray_data() -> None:
    # Imports Ray Data, which takes a second: Ray starts before.
    from jobs.ray_runtime.data_context import quiet_ray_data

    quiet_ray_data()


def _alone_in_ray() -> contextlib.AbstractContextManager[None]:
    # As above.
    from jobs.ray_runtime.own_data import alone_in_ray

    return alone_in_ray()


def _empty_folder() -> ScratchFolder:
    """The current folder of Ray's processes."""
    try:
        return ScratchFolder("ray")
    except OSError as error:
        raise PneumoniaError(
            f"Ray gets no folder for its processes ({error.strerror}).", Remedy.OTHER_SCRATCH
        ) from error


def names_a_cluster(address: str | None) -> bool:
    """Whether this address, or else RAY_ADDRESS, names a running cluster."""
    return (address or os.environ.get("RAY_ADDRESS") or "local") != "local"


@contextmanager
def _ray_prints_to_stderr() -> Iterator[None]:
    """Ray prints messages about dead workers to stdout, where a program expects only the result."""
    with os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace") as stream, redirect_stdout(stream):
        yield


# The variables that Ray and its workers get, unless the user has set them.
_ENVIRONMENT: Final = {
    # Otherwise Ray hides all GPUs from tasks that reserve none, and warns that this default will change.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # A thread of Ray Data that outlives the session would join whatever cluster runs on this machine.
    "RAY_ENABLE_AUTO_CONNECT": "0",
    # The commands have a progress bar of their own.
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    # Ray Train notices workers that hang in a collective operation by this timeout; its default is 600 s.
    "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": "120",
    # No usage statistics leave the cluster.
    "RAY_USAGE_STATS_ENABLED": "0",
    # TensorFlow and gRPC log to stderr below these levels.
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "GLOG_minloglevel": "2",
}


def _set_environment() -> None:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


@contextlib.contextmanager
def ray_errors_explained() -> Iterator[None]:
    """Turns the cluster's errors into one line instead of Ray's tracebacks."""
    # Only a block that uses Ray comes here.
    import ray.data.exceptions

    try:
        yield
    except ray.data.exceptions.ExecutionTimeoutError as error:
        raise PneumoniaError(
            "the cluster finished no chunk for too long: its workers are stuck, or have too little memory or "
            "too few CPUs. What is finished is kept.",
            Remedy.RUN_AGAIN,
        ) from error
    except ray.exceptions.RayError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[-1] if lines else type(error).__name__
        raise PneumoniaError(
            f"the cluster failed: {type(error).__name__}: {reason[:300]} What is finished is kept.",
            Remedy.RUN_AGAIN,
        ) from error

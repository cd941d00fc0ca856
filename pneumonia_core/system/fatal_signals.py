"""Crashes that end their process at once."""

import ctypes
import signal
from typing import Final

FATAL_SIGNALS: Final = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)
_SIG_DFL: Final = None


def end_at_once_on_crash() -> None:
    """Let a fatal signal end this process at once, whatever handler a library has for it.

    A Ray worker has Abseil's, which prints the stack first. It crashes itself on some stacks, and then begins
    again and never ends (measured with Ray 2.60): such a worker is neither alive nor dead. Any thread may
    call this, which Python's `signal` does not allow.
    """
    set_handler = ctypes.CDLL(None).signal
    set_handler.argtypes = (ctypes.c_int, ctypes.c_void_p)
    set_handler.restype = ctypes.c_void_p
    for number in FATAL_SIGNALS:
        set_handler(number, _SIG_DFL)

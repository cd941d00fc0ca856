"""A crash ends its process at once, also where a library handles the signal, and from any thread."""

import subprocess
import sys

import pytest

from pneumonia_core.system.fatal_signals import FATAL_SIGNALS

# The handler of faulthandler says something, as that of a Ray worker does.
CRASH = """
import faulthandler, os, sys, threading
from pneumonia_core.system.fatal_signals import end_at_once_on_crash

faulthandler.enable()
thread = threading.Thread(target=end_at_once_on_crash)
thread.start()
thread.join()
os.kill(os.getpid(), int(sys.argv[1]))
"""


@pytest.mark.parametrize("number", FATAL_SIGNALS)
def test_crash_ends_a_process_without_a_word(number):
    ended = subprocess.run([sys.executable, "-c", CRASH, str(int(number))], capture_output=True, check=False)
    assert (ended.returncode, ended.stderr) == (-number, b"")

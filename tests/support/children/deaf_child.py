"""A module for the tests of ChildPool: a child that imports it says that it is ready, and then reads
nothing."""

import os
import sys
import time


def answer(request: bytes) -> bytes:
    return request


if os.environ.get("PNEUMONIA_TEST_DEAF") and sys.argv[0].endswith("child_server.py"):
    os.write(1, bytes(8))
    time.sleep(60)

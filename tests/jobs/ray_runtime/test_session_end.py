"""What is left of a Ray session when it ends."""

import os
import subprocess
import sys

import pytest
from support.paths import REPOSITORY

# A thread that outlives the session calls Ray, as those of Ray Data may.
PROGRAM = """
from jobs.ray_runtime.session import ray_session
with ray_session("local", num_cpus=1):
    import ray
try:
    ray.put(1)
except ray.exceptions.RaySystemError:
    print("joined nothing")
"""


@pytest.mark.slow
def test_nothing_joins_another_cluster_when_the_session_has_ended(ray_here):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=REPOSITORY,
        env={**environment, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.endswith("joined nothing\n"), done.stderr

"""Ray's processes have a current folder of their own, and import nothing from a user's."""

import os
import subprocess
import sys
from pathlib import Path

from support.paths import REPOSITORY
from support.scoring import last_json


def test_workers_import_nothing_from_the_folder_that_ray_was_started_in(ray_here, trapped_folder):
    @ray_here.remote(num_cpus=0)
    def look() -> dict:
        import importlib.util
        import wave  # of the standard library

        import jobs.score  # of this project

        found = importlib.util.find_spec("dl")
        return {
            "dl": found and found.origin,
            "wave": wave.__file__,
            "jobs": jobs.score.__file__,
            "folder": str(Path.cwd()),
            "path": [str(Path(folder).resolve()) for folder in sys.path],
            "safe": sys.flags.safe_path,
        }

    seen = ray_here.get(look.remote())
    assert seen["dl"] is None
    assert not Path(seen["wave"]).is_relative_to(trapped_folder)
    assert Path(seen["jobs"]).is_relative_to(REPOSITORY)
    assert str(trapped_folder) not in [seen["folder"], *seen["path"]]
    assert not list(Path(seen["folder"]).iterdir())
    assert seen["safe"]
    assert not (trapped_folder / "executed").exists()


def test_command_imports_nothing_from_the_folder_that_it_is_started_in(trapped_folder):
    """Also as `python -m`, which puts that folder first."""
    done = subprocess.run(
        [sys.executable, "-m", "jobs.cli", "inspect", "/nowhere"],
        cwd=trapped_folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "/nowhere" in last_json(done)["error"]
    assert not (trapped_folder / "executed").exists()

"""The processes of the Ray that a command starts for itself."""

import os
from pathlib import Path

from jobs.ray_runtime.growth import may_grow


def started_here(session_folder: str) -> set[str]:
    """The programs among this process's children that belong to this session of Ray."""
    children = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    commands = [
        Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
        for each in children
        for pid in each.read_text().split()
    ]
    return {
        next(Path(part).name for part in command if Path(part).name not in ("python", "-u"))
        for command in commands
        if any(session_folder in part for part in command)
    }


def test_nothing_is_started_that_no_command_uses(ray_here):
    """No autoscaler, dashboard or log monitor: each takes half a second to start, and 50 MB."""
    session_folder = ray_here._private.worker._global_node.get_session_dir_path()
    assert started_here(session_folder) == {"gcs_server", "raylet"}


def test_it_does_not_grow(ray_here):
    assert not may_grow()


def test_ray_data_starts_no_actors_to_share_it(ray_here):
    """Each imports Ray Data for more than a second. Commands that join this Ray may have started them."""
    from ray.data import ActorPoolStrategy
    from ray.util import list_named_actors

    class Same:
        def __call__(self, batch):
            return batch

    def named():
        return {actor["name"] for actor in list_named_actors(all_namespaces=True)}

    before = named()
    data = ray_here.data.range(3).map_batches(Same, compute=ActorPoolStrategy(size=1), num_cpus=1)
    assert sorted(row["id"] for row in data.take_all()) == [0, 1, 2]
    assert named() == before

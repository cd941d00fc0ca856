"""The place of a benchmark: a folder that every node reaches, removed at its end, with X-rays to score."""

import contextlib
import os
import secrets
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from jobs.ray_runtime.resources import Node
from pneumonia_core.errors import InvalidInput
from pneumonia_core.phantoms.variants import jpeg_variants
from pneumonia_core.storage.files import delete_folder, make_folder, write_bytes
from pneumonia_core.storage.location import Location, open_location
from pneumonia_core.system.scratch import ScratchFolder


@contextlib.contextmanager
def temporary_place(workdir: str | None, nodes: Sequence[Node]) -> Iterator[Location]:
    """An empty folder under `workdir`, or else on this machine; it is removed with the block.

    Raises InvalidInput where other nodes do not see this machine's folder, or it cannot be made.
    """
    if workdir is None:
        _check_only_this_machine(nodes)
        with ScratchFolder("bench") as folder:
            yield open_location(str(folder))
        return
    place = open_location(workdir).child(f"pneumonia-bench-{secrets.token_hex(4)}")
    make_folder(place)
    try:
        yield place
    finally:
        delete_folder(place)


def _check_only_this_machine(nodes: Sequence[Node]) -> None:
    # Ray reads its environment on import, which the session sets first.
    import ray

    here = ray.get_runtime_context().get_node_id()
    others = sum(node.node_id != here for node in nodes)
    if others:
        raise InvalidInput(
            f"{others} nodes of the cluster are other machines, which do not see a temporary folder of this "
            "one. Give --workdir a folder or bucket that every node reaches; bench removes what it writes."
        )


def write_xrays(folder: Location, count: int) -> None:
    """Write so many synthetic X-rays, each different in bytes and pixels."""
    make_folder(folder)
    jpeg = jpeg_variants()

    def write(number: int) -> None:
        write_bytes(folder.child(f"xray_{number:06d}.jpeg"), jpeg(number), durable=False)

    with ThreadPoolExecutor(min(32, 4 * (os.cpu_count() or 1)), thread_name_prefix="xrays") as pool:
        for _ in pool.map(write, range(count)):
            pass

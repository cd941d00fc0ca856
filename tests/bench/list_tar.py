"""How fast a tar of many members is listed, and how much memory that takes.

    python tests/bench/list_tar.py [--members 100000] [--gz]

Prints one JSON object. The peak is that of this process, over what it had before the listing.
"""

import argparse
import gzip
import io
import json
import resource
import shutil
import tarfile
import tempfile
import time
from collections import Counter
from pathlib import Path

from pneumonia_core.archives.archive import list_archive


def write_tar(path: Path, members: int, size_bytes: int) -> None:
    data = bytes(size_bytes)
    with tarfile.open(path, "w") as tar:
        for number in range(members):
            info = tarfile.TarInfo(f"ward {number % 100:02d}/xr_{number:07d}.jpeg")
            info.size = size_bytes
            tar.addfile(info, io.BytesIO(data))
            tar.members.clear()


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=100_000)
    parser.add_argument("--size-bytes", type=int, default=4096)
    parser.add_argument("--gz", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="list-tar-") as folder:
        path = Path(folder) / "a.tar"
        write_tar(path, options.members, options.size_bytes)
        if options.gz:
            with path.open("rb") as plain, gzip.open(f"{path}.gz", "wb", 1) as packed:
                shutil.copyfileobj(plain, packed)
            path = path.with_name("a.tar.gz")
        before_mb, started = peak_mb(), time.perf_counter()
        listed = sum(1 for _ in list_archive(f"file://{path}", Counter()))
        seconds = time.perf_counter() - started
    print(
        json.dumps(
            {
                "members": listed,
                "seconds": round(seconds, 2),
                "members_per_s": round(listed / seconds),
                "peak_mb_added": round(peak_mb() - before_mb, 1),
            }
        )
    )


if __name__ == "__main__":
    main()

"""What scoring images again costs with a cache of decoded squares: bytes read and CPU of one thread.

python tests/bench/cached_squares.py FOLDER [--size 224] [--chunk-size 256]
"""

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from pneumonia_core.archives.archive import list_archive, open_archive
from pneumonia_core.archives.entries import FetchedImage, ImageRef
from pneumonia_core.imaging.contract import Decoded
from pneumonia_core.scoring.decoding import read_and_decode
from pneumonia_core.scoring.square_cache import SquareCache, index_run, squares_folder, with_cached_squares
from pneumonia_core.storage.location import Location, open_location


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--size", default=224, show_default=True)
@click.option("--chunk-size", default=256, show_default=True)
def main(folder: Path, size: int, chunk_size: int) -> None:
    listed = list_archive(open_archive(str(folder)), Counter())
    refs = [ImageRef(image.uri, image.source, image.size_bytes, image.version) for image in listed]

    def decode(missing: Sequence[ImageRef]) -> list[Decoded]:
        return [read_and_decode(FetchedImage(ref), size) for ref in missing]

    def scored(cache: SquareCache | None) -> None:
        for chunk, start in enumerate(range(0, len(refs), chunk_size)):
            for _ in with_cached_squares(refs[start : start + chunk_size], size, chunk, cache, decode):
                pass

    with tempfile.TemporaryDirectory() as place:
        squares = squares_folder(open_location(place), size, trust_chest=False)
        tell("no cache", refs, lambda: scored(None))
        tell("filled", refs, lambda: scored(SquareCache(squares, "first")))
        index_run(squares, "first")
        tell("read", refs, lambda: scored(SquareCache(squares, "second")))
        kilobytes = size_of(squares.child("packs")) / len(refs) / 1e3
    original = sum(ref.size_bytes for ref in refs) / len(refs) / 1e3
    print(f"{len(refs)} images: {original:.1f} kB each, {kilobytes:.1f} kB each in the cache")


def tell(what: str, refs: Sequence[ImageRef], work: Callable[[], None]) -> None:
    started = time.process_time()
    work()
    print(f"{what:10s} {(time.process_time() - started) * 1e3 / len(refs):6.3f} ms of CPU an image")


def size_of(folder: Location) -> int:
    return sum(file.stat().st_size for file in Path(folder.path).rglob("*") if file.is_file())


if __name__ == "__main__":
    main()

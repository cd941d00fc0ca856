"""TIFF files in every layout, also those that Pillow does not write."""

import struct
import zlib

import numpy as np


def tiff_file(
    samples: np.ndarray,
    order: str = "<",
    planar: int = 1,
    deflated: bool = False,
    extra: tuple[int, ...] = (),
    **tags: int,
) -> bytes:
    """A TIFF of samples [H, W, C] of 8 or 16 bits, with these ExtraSamples and in this order of bytes."""
    height, width, count = samples.shape
    stored = samples.astype(samples.dtype.newbyteorder(order))
    strips = [stored[..., n].tobytes() for n in range(count)] if planar == 2 else [stored.tobytes()]
    strips = [zlib.compress(strip) for strip in strips] if deflated else strips
    colours = count - len(extra)
    entries: dict[int, tuple[str, tuple[int, ...]]] = {
        256: ("I", (width,)),
        257: ("I", (height,)),
        258: ("H", (8 * samples.dtype.itemsize,) * count),
        259: ("H", (8 if deflated else 1,)),
        262: ("H", (2 if colours == 3 else 1,)),
        273: ("I", (0,) * len(strips)),
        277: ("H", (count,)),
        278: ("I", (height,)),
        279: ("I", tuple(map(len, strips))),
        284: ("H", (planar,)),
        **({338: ("H", extra)} if extra else {}),
        **{int(tag.removeprefix("tag")): ("H", (value,)) for tag, value in tags.items()},
    }
    first = 8 + 2 + 12 * len(entries) + 4
    pixels = first + 8 * sum(len(values) for _, values in entries.values())
    starts = [pixels + sum(map(len, strips[:number])) for number in range(len(strips))]
    entries[273] = ("I", tuple(starts))
    directory, far = struct.pack(f"{order}H", len(entries)), b""
    for tag, (kind, values) in sorted(entries.items()):
        raw = struct.pack(f"{order}{len(values)}{kind}", *values)
        if len(raw) > 4:
            far, raw = far + raw, struct.pack(f"{order}I", first + len(far))
        directory += struct.pack(f"{order}HHI", tag, {"H": 3, "I": 4}[kind], len(values)) + raw.ljust(
            4, b"\0"
        )
    header = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    head = header + directory + bytes(4) + far
    return head.ljust(pixels, b"\0") + b"".join(strips)

"""JPEG of 12 bits for each sample (ITU T.81, extended sequential), which no library here writes."""

import struct

import numpy as np
from scipy.fft import dctn

_STEP = 4
# Codes of one length for all symbols: sizes of DC differences, and run and size of AC coefficients.
_DC = list(range(16))
_AC = [0x00, 0xF0, *(run << 4 | size for run in range(16) for size in range(1, 15))]
_ZIGZAG = sorted(
    ((row, column) for row in range(8) for column in range(8)),
    key=lambda at: (sum(at), at[0] if sum(at) % 2 else at[1]),
)


def jpeg_12_bits(values: np.ndarray) -> bytes:
    """Grey values of 12 bits [H, W]; sides are multiples of 8."""
    height, width = values.shape
    blocks = (
        values.astype(float).reshape(height // 8, 8, width // 8, 8).transpose(0, 2, 1, 3).reshape(-1, 8, 8)
    )
    coefficients = np.rint(dctn(blocks - 2048, axes=(1, 2), norm="ortho") / _STEP).astype(int)
    rows, columns = zip(*_ZIGZAG, strict=True)
    bits, last = [], 0
    for block in coefficients[:, rows, columns]:
        bits.append(_coded(_DC, 5, 0, int(block[0]) - last))
        last, run = int(block[0]), 0
        used = np.flatnonzero(block)
        for value in block[1 : used[-1] + 1] if used.size else ():
            if value == 0:
                run += 1
                continue
            bits.append(format(_AC.index(0xF0), "08b") * (run // 16) + _coded(_AC, 8, run % 16, int(value)))
            run = 0
        if not block[-1]:
            bits.append(format(_AC.index(0x00), "08b"))
    text = "".join(bits)
    text += "1" * (-len(text) % 8)
    scan = int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\x00")
    frame = struct.pack(">BHHBBBB", 12, height, width, 1, 1, 0x11, 0)
    tables = b"".join(
        _segment(0xC4, bytes([kind << 4, *_counts(symbols, length), *symbols]))
        for kind, symbols, length in ((0, _DC, 5), (1, _AC, 8))
    )
    quantisation = _segment(0xDB, bytes([0] + [_STEP] * 64))
    head = quantisation + _segment(0xC1, frame) + tables + _segment(0xDA, bytes([1, 1, 0, 0, 63, 0]))
    return b"\xff\xd8" + head + scan + b"\xff\xd9"


def _coded(symbols: list[int], length: int, run: int, value: int) -> str:
    size = abs(value).bit_length()
    code = format(symbols.index(run << 4 | size), f"0{length}b")
    return code + (format(value if value > 0 else value + (1 << size) - 1, f"0{size}b") if size else "")


def _counts(symbols: list[int], length: int) -> list[int]:
    """How many symbols have codes of 1 to 16 bits."""
    return [len(symbols) if size == length else 0 for size in range(1, 17)]


def _segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body

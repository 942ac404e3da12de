"""PNG of three channels of 16 bits, as SYNTHIA has it: no library at hand writes them, with every row filter."""

import struct
import zlib
from pathlib import Path

import numpy as np


def png(width: int, height: int, bits: int, colour_type: int, data: bytes) -> bytes:
    """A PNG of compressed data, in chunks as programs write them."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0))
    parts = b"".join(chunk(b"IDAT", data[start : start + 500]) for start in range(0, len(data), 500))
    return b"\x89PNG\r\n\x1a\n" + header + parts + chunk(b"IEND", b"")


def filtered_rows(values: np.ndarray, filters: tuple[int, ...]) -> bytes:
    """The rows of a 16-bit image, [H, W, 3], under these filters in turn; the five of the PNG specification."""
    rows, above = b"", np.zeros(values.shape[1] * 6, dtype=int)
    for y, row in enumerate(values.astype(">u2")):
        own = np.frombuffer(row.tobytes(), dtype=np.uint8).astype(int)
        left, corner = (np.concatenate([np.zeros(6, dtype=int), line[:-6]]) for line in (own, above))
        guess = left + above - corner
        by_distance = np.argsort([abs(guess - c) for c in (left, above, corner)], axis=0, kind="stable")[0]
        paeth = np.choose(by_distance, [left, above, corner])
        kind = filters[y % len(filters)]
        predicted = (np.zeros_like(own), left, above, (left + above) // 2, paeth)[kind]
        rows += bytes([kind]) + ((own - predicted) % 256).astype(np.uint8).tobytes()
        above = own
    return rows


def save_16_bit(path: Path, red: np.ndarray, filters: tuple[int, ...] = (0, 1, 2, 3, 4)) -> None:
    """A label map as SYNTHIA has it: red is the class, green an instance number of more than a byte, blue nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    instances = np.random.default_rng(1).integers(0, 40_000, red.shape)
    values = np.stack([red, instances, np.zeros_like(red)], -1).astype(np.uint16)
    path.write_bytes(png(red.shape[1], red.shape[0], 16, 2, zlib.compress(filtered_rows(values, filters))))

"""Arrays as image files, those that Pillow does not write among them: what the tests of decoding read."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

RAMP = np.tile(np.arange(256), (4, 1))
"""Grey from black to white, [4, 256]."""

NOISE = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)


def encoded(pixels: np.ndarray, kind: str = "PNG", mode: str | None = None, **options) -> bytes:
    """An array as an image file; in `mode` (of Pillow) if given."""
    image, file = Image.fromarray(pixels), io.BytesIO()
    (image.convert(mode) if mode else image).save(file, kind, **options)
    return file.getvalue()


def with_palette(indices: np.ndarray, colours: np.ndarray, kind: str = "PNG") -> bytes:
    image, file = Image.fromarray(indices.astype(np.uint8)), io.BytesIO()
    image.putpalette(np.asarray(colours, dtype=np.uint8).tobytes())
    image.save(file, kind)
    return file.getvalue()


def deep_png(values: np.ndarray, bits: int = 16, colour_type: int = 2) -> bytes:
    """A PNG of 16 bits a channel, or of grey of fewer bits."""
    places = np.arange(bits)[::-1]
    packed = np.packbits((values[..., None] >> places & 1).astype(np.uint8).reshape(len(values), -1), axis=1)
    return png(
        values.shape[1],
        values.shape[0],
        bits,
        colour_type,
        zlib.compress(b"".join(b"\0" + row.tobytes() for row in packed)),
    )


def deep_tiff(values: np.ndarray) -> bytes:
    """An uncompressed TIFF of three channels of 16 bits, little-endian."""
    height, width, channels = values.shape
    pixels = values.astype("<u2").tobytes()
    after = 8 + 6  # header, bits of each channel
    fields = ((256, width), (257, height), (258, 8), (259, 1), (262, 2), (273, after), (277, 3), (278, height))
    entries = [struct.pack("<HHII", tag, 3 if tag == 258 else 4, channels if tag == 258 else 1, v) for tag, v in fields]
    entries.append(struct.pack("<HHII", 279, 4, 1, len(pixels)))
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + b"\0\0\0\0"
    return struct.pack("<2sHI", b"II", 42, after + len(pixels)) + struct.pack("<3H", 16, 16, 16) + pixels + directory


def grey(levels: np.ndarray) -> np.ndarray:
    return np.repeat(levels[..., None], 3, axis=-1)


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

"""Draws small Cityscapes, GTA5 and SYNTHIA trees in their real formats, 16-bit PNG with every row filter among them.

Every image is 32 x 64; its red channel is seven times the number in the label map, so a test sees that the two match.
"""

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fsslib.data import open_task
from fsslib.data.decode import STREETS
from fsslib.data.tasks import AdaptationTask

SIZE = (32, 64)
CITY_IDS = {
    "train": tuple(f"{city}_{n:06d}_000019" for city in ("aachen", "bochum", "ulm") for n in (0, 77, 82)),
    "val": ("lindau_000000_000019", "lindau_000001_000019"),
}
GTA5_IDS = ("00001", "00002", "00003", "00004", "15188")
SHORT, VOID_ONLY = "00003", "00004"
SYNTHIA_IDS = ("0000000", "0000001", "0000002", "0009399")
LANES = "0000001"
"""The image of SYNTHIA with a patch of lane marking, 6 x 10 pixels."""


def blocks(seed: int, count: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A map of numbers below `count`, in blocks of 4 x 4."""
    coarse = np.random.default_rng(seed).integers(0, count, (size[0] // 4 + 1, size[1] // 4))
    return np.kron(coarse, np.ones((4, 4), dtype=np.uint8)).astype(np.uint8)[: size[0]]


def save(path: Path, pixels: np.ndarray, *, palette: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if palette:
        # As in the release: colours that are no function of the numbers' order, some of them of several numbers.
        image.putpalette(bytes.fromhex(STREETS))
    image.save(path, format="PNG")


def photograph(numbers: np.ndarray) -> np.ndarray:
    return np.stack([numbers * 7, np.full_like(numbers, 90), np.full_like(numbers, 200)], -1)


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


def draw_cityscapes(root: Path) -> dict[str, np.ndarray]:
    """Three cities to train on, one to test on, labelIds alone; returns the numbers by id. A stray file lies about."""
    folder, drawn = root / "Cityscapes", {}
    for split, ids in CITY_IDS.items():
        for image_id in ids:
            drawn[image_id] = numbers = blocks(len(drawn), 34)
            place = f"{split}/{image_id.split('_')[0]}/{image_id}"
            save(folder / "leftImg8bit" / f"{place}_leftImg8bit.png", photograph(numbers))
            save(folder / "gtFine" / f"{place}_gtFine_labelIds.png", numbers)
            save(folder / "gtFine" / f"{place}_gtFine_color.png", photograph(numbers))
    (folder / "leftImg8bit" / "train" / "aachen" / "Thumbs.db").write_bytes(b"\xd0\xcf")
    return drawn


def draw_gta5(root: Path) -> dict[str, np.ndarray]:
    """Five frames with palettes: one two rows shorter, one all void, one in capitals; and what a Mac leaves behind."""
    drawn = {}
    for n, image_id in enumerate(GTA5_IDS):
        drawn[image_id] = numbers = blocks(50 + n, 35, (30, 64) if image_id == SHORT else SIZE)
        if image_id == VOID_ONLY:
            numbers[:] = 4
        name = f"{image_id}.PNG" if n == 1 else f"{image_id}.png"
        save(root / "GTA5" / "images" / name, photograph(numbers))
        save(root / "GTA5" / "labels" / name, numbers, palette=True)
    (root / "GTA5" / "labels" / "._00001.png").write_bytes(b"\x00\x05\x16\x07")
    return drawn


def draw_synthia(root: Path) -> dict[str, np.ndarray]:
    """Four images, each with all filters of the format in another order."""
    folder, drawn = root / "SYNTHIA" / "RAND_CITYSCAPES", {}
    for n, image_id in enumerate(SYNTHIA_IDS):
        drawn[image_id] = numbers = blocks(80 + n, 22)
        if image_id == LANES:
            numbers[20:26, 30:40] = 22
        save(folder / "RGB" / f"{image_id}.png", photograph(numbers))
        save_16_bit(folder / "GT" / "LABELS" / f"{image_id}.png", numbers, tuple((n + k) % 5 for k in range(5)))
    return drawn


def open_drawn_streets(root: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> AdaptationTask:
    """The task from GTA5 or SYNTHIA to Cityscapes on trees drawn below `root`, at 16 pixels."""
    draw_cityscapes(root)
    (draw_gta5 if source == "gta5" else draw_synthia)(root)
    monkeypatch.setenv("FSSLIB_DATA", str(root))
    with warnings.catch_warnings():
        # GTA5's frames with a label map of another size are left out aloud.
        warnings.simplefilter("ignore", UserWarning)
        return open_task("cityscapes", source=source, targets=("cityscapes",), size=16)

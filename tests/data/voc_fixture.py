"""Draws a small PASCAL VOC 2012 tree in the real format: JPEG images, palette and grey masks, void borders, lists.

Objects are filled rectangles in their class's palette colour on grey, so that a test can find them in the image too.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

Box = tuple[int, int, int, int]


def voc_palette() -> np.ndarray:
    """The 256 colours of VOC's masks [256, 3]: the index, three bits at a time, fills red, green, blue from the top."""
    palette = np.zeros((256, 3), dtype=np.uint8)
    for index in range(256):
        for bit in range(8):
            for channel in range(3):
                palette[index, channel] |= ((index >> (3 * (bit // 3) + channel)) & 1) << (7 - bit // 3)
    return palette


def label_map(size: tuple[int, int], objects: Sequence[tuple[int, Box]], *, void_border: bool) -> np.ndarray:
    """A label map of `size` (height, width) with rectangles (class, (top, left, bottom, right)), the last in front."""
    labels = np.zeros(size, dtype=np.uint8)
    for class_id, (top, left, bottom, right) in objects:
        if void_border:
            labels[max(top - 1, 0) : bottom + 1, max(left - 1, 0) : right + 1] = 255
        labels[top:bottom, left:right] = class_id
    return labels


def add_image(
    root: Path,
    image_id: str,
    objects: Sequence[tuple[int, Box]],
    *,
    size: tuple[int, int] = (45, 60),
    void_border: bool = True,
    palette: bool = True,
) -> np.ndarray:
    """Write one image with its mask below `root`/VOCdevkit/VOC2012 and return the label map."""
    voc = root / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClassAug", "ImageSets/Segmentation"):
        (voc / folder).mkdir(parents=True, exist_ok=True)
    labels = label_map(size, objects, void_border=void_border)
    colours = voc_palette()
    picture = colours[np.where(labels == 255, 0, labels)]
    picture[picture.sum(-1) == 0] = 110
    # Without some noise the compressed picture would be shorter than its header, which no photograph is.
    noise = np.random.default_rng(0).integers(-8, 9, picture.shape)
    picture = (picture + noise).clip(0, 255).astype(np.uint8)
    Image.fromarray(picture).save(voc / "JPEGImages" / f"{image_id}.jpg", quality=95)
    mask = Image.fromarray(labels)
    if palette:
        mask.putpalette(colours.tobytes())
    mask.save(voc / "SegmentationClassAug" / f"{image_id}.png")
    return labels


def add_list(root: Path, name: str, lines: Sequence[str], *, newline: str = "\n") -> Path:
    path = root / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation" / f"{name}.txt"
    path.write_bytes("".join(line + newline for line in lines).encode())
    return path


def draw_voc(root: Path, *, images_per_class: int = 4) -> Path:
    """All 20 classes with `images_per_class` images each, and five images that make trouble; returns `root`.

    2011_00000N: car (fold 1) with dog (fold 2), person with cat, car with cow (both fold 1), a sheep with a scrap of a
    cat (below the least share), and nothing but void. Sizes are odd and mostly not square; every third mask is grey
    (mode L) without void, as SBD's are. trainaug has Windows line ends, a blank line and a repeated id; val has not.
    """
    rng = np.random.default_rng(0)
    ids = []
    for class_id in range(1, 21):
        for k in range(images_per_class):
            size = ((45, 60), (61, 47), (50, 50))[k % 3]
            top, left = rng.integers(2, 14, size=2).tolist()
            height, width = rng.integers(14, 28, size=2).tolist()
            box = (top, left, top + height, left + width)
            ids.append(f"2010_{class_id:02d}{k:04d}")
            add_image(root, ids[-1], [(class_id, box)], size=size, void_border=k % 3 != 2, palette=k % 3 != 2)
    add_image(root, "2011_000001", [(7, (5, 5, 25, 25)), (12, (10, 30, 40, 55))])
    add_image(root, "2011_000002", [(15, (5, 5, 40, 25)), (8, (20, 20, 40, 50))])
    add_image(root, "2011_000003", [(7, (5, 5, 25, 25)), (10, (10, 30, 40, 55))])
    add_image(root, "2011_000004", [(17, (5, 5, 30, 30)), (8, (40, 50, 43, 53))])
    add_image(root, "2011_000005", [(255, (5, 5, 30, 30))])
    trouble = [f"2011_{k:06d}" for k in range(1, 6)]
    add_list(root, "trainaug", [*ids[::2], "", ids[0], *trouble], newline="\r\n")
    add_list(root, "val", ids[1::2])
    return root

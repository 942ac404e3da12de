"""GTA5, 24,966 frames of a computer game with Cityscapes' classes (Richter et al., "Playing for Data", ECCV 2016).

Expected below the data folder, as the twenty archives 01_images.zip ... 10_labels.zip unpack; some parts are enough:

    GTA5/images/00001.png
    GTA5/labels/00001.png       a palette whose indices are Cityscapes' ids, 0..34
"""

import warnings
from pathlib import Path

from jaxtyping import UInt8
from torch import Tensor

from fsslib.data.decode import PALETTES, DataError, hold_sizes, read_label_map, read_size, refuse
from fsslib.data.driving import DrivingImages
from fsslib.data.street_classes import CITYSCAPES_TRAIN_IDS, Pairs, find_pairs, serve, to_train_ids

IMAGES = 24_966
"""Frames of the release; some downloads lack 25 of them."""

MISMATCHES = 60
"""Frames of the release whose label map has another size than the image: its page gives the number and no names."""

HOW_TO_GET = """To get it: fsslib data get gta5. Or download 01_images.zip to 10_images.zip (56 GB) and 01_labels.zip to
10_labels.zip (0.7 GB), or some parts of both, from download.visinf.tu-darmstadt.de/data/from_games (no registration;
for research and education only), and unpack them into {folder}. Set FSSLIB_DATA to the folder that holds GTA5.
The toy streets (data "streets") need no download."""


def gta5(root: Path | str | None = None, *, size: tuple[int, int] = (512, 1024)) -> DrivingImages:
    """All frames with 19 classes at `size` (height, width); ids are such as "00001", the domain is "gta5".

    `root` holds the folder GTA5 (default: `data_root()`). Most frames are 1052 x 1914, some a few rows less. Some
    frames are void all over and are served so: they teach nothing and cost a place in a batch.

    Frames whose label map has another size than the image are left out, and a warning names them: whether one of the
    two was scaled or cropped is not known, and the labels would lie beside what they name. For this, opening reads the
    header of every file. More of them than MISMATCHES are a damaged copy and a DataError, as are missing folders and
    images without a label map. A damaged file, or one with other values, is found when it is first asked for. A copy in
    train ids is told by its palette, or in grey by its void (255): in grey without void it is read as other classes.
    """
    pairs = find_pairs(root, "GTA5", ("images", "labels"), HOW_TO_GET)
    return serve(_of_one_size(pairs), _read_labels, name="gta5", domain="gta5", size=size)


def _of_one_size(pairs: Pairs) -> Pairs:
    different = {}
    for image_id, (image, labels) in pairs.items():
        try:
            sizes = read_size(image), read_size(labels)
        except DataError as error:
            refuse({image_id: str(error)}, "")
            continue
        try:
            hold_sizes(labels, *sizes)
        except DataError as error:
            different[image_id] = str(error)
    if len(different) > MISMATCHES:
        refuse(different, f"In the release {MISMATCHES} of {IMAGES} are so, and left out.")
    elif different:
        warnings.warn(
            f"GTA5: {len(different)} of {len(pairs)} frames are left out, because their label map has another size "
            f"than the image: {', '.join(different)}. The release has {MISMATCHES} such frames.",
            stacklevel=3,
        )
    return {i: pair for i, pair in pairs.items() if i not in different}


def _read_labels(path: Path) -> UInt8[Tensor, "H W"]:
    return to_train_ids(read_label_map(path, PALETTES["cityscapes"]), CITYSCAPES_TRAIN_IDS, 34, path)

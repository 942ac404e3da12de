"""The 19 classes that Cityscapes is scored on, which GTA5 and SYNTHIA share, and what the readers of the three share.

Class numbers are Cityscapes' train ids, 0 to 18, with 255 for void.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from jaxtyping import Integer, UInt8
from torch import Tensor

from fsslib.data.decode import PALETTES, DataError, read_image
from fsslib.data.driving import DrivingImages
from fsslib.data.masks import paired
from fsslib.episodes import VOID
from fsslib.paths import data_root

CLASS_NAMES = dict(
    enumerate(
        (
            *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation"),
            *("terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
        )
    )
)
"""The classes by train id."""

CITYSCAPES_TRAIN_IDS = {
    number: train_id
    for train_id, number in enumerate((7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33))
}
"""Train id of each number in the label maps of Cityscapes and GTA5 that has one; the others are void."""

TRAIN_ID_COLOURS = {
    colour: (CITYSCAPES_TRAIN_IDS.get(numbers[0], VOID),) for colour, numbers in PALETTES["cityscapes"].items()
}
"""The palette of label maps in train ids."""

SUBSETS = {
    19: tuple(CLASS_NAMES),
    16: (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18),
    13: (0, 1, 2, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18),
}
"""The classes that scores from SYNTHIA to Cityscapes are given over, by how many they are.

SYNTHIA has no terrain, truck or train, hence 16; 13 leave out wall, fence and pole too, and are what PixDA reports. All
come from one `SegmentationMeter` over 19 classes: `meter.miou_of(SUBSETS[16])`. The shortcut "mIoU of 19 x 19 / 16" is
right only where the three absent classes score 0: not for a model that has learnt them from labelled target images.
"""

TO_CAMVID = dict(enumerate((3, 4, 1, 1, 7, 2, 6, 6, 5, 5, 0, 9, 10, 8, 8, 8, 8, 10, 10)))
"""Each class as one of CamVid's eleven (`fsslib.data.camvid.CLASS_NAMES`), for `fsslib.data.streams.Relabelled`.

Ours, as no paper fixes it: walls are buildings, lights are signs, terrain is tree, riders and all two-wheelers are
bicyclists, every other vehicle is a car.
"""

Pairs = Mapping[str, tuple[Path, Path]]
"""The image and the label map of each id."""


def find_pairs(
    root: Path | str | None,
    name: str,
    folders: tuple[str, str],
    how_to_get: str,
    *,
    pattern: str = "*",
    image_ending: str = ".png",
    label_endings: tuple[str, ...] = (".png",),
) -> Pairs:
    """The images and label maps in two folders of a data set, by their names up to the ending, in letters of any case.

    `root` holds the folder `name` (default: `data_root()`); of several endings the first counts that any label map has.
    Left alone are hidden files, those that end otherwise, and what other code made of label maps and left beside them
    (00001_labelTrainIds.png beside 00001.png). Raises DataError with the next step when a folder is missing, holds
    nothing or only the latter, and for an image or a label map without the other.
    """
    folder = (data_root() if root is None else Path(root)) / name
    step = how_to_get.format(folder=folder)
    for path in (folder / part for part in folders):
        if not path.is_dir():
            raise DataError(f"{name} is not complete: there is no folder {path}.\n{step}")

    def by_name(part: str, ending: str) -> dict[str, Path]:
        files = [path for path in sorted((folder / part).glob(pattern)) if path.name[0] != "."]
        return {path.name[: -len(ending)]: path for path in files if path.name.lower().endswith(ending.lower())}

    images = by_name(folders[0], image_ending)
    labels = next(filter(None, (by_name(folders[1], ending) for ending in label_endings)), {})
    if not images and not labels:
        raise DataError(f"{folder / folders[0]} holds no image that ends in {image_ending}.\n{step}")
    derived = {key: path for key, path in labels.items() if key not in images and key.partition("_")[0] in images}
    if derived and len(derived) == len(labels):
        raise DataError(
            f"{folder / folders[1]} holds no label map as published, only what other code made of them, such as "
            f"{next(iter(derived.values())).name}. Unpack the archives of the label maps again.\n{step}"
        )
    labels = {key: path for key, path in labels.items() if key not in derived}
    return paired(images, labels, folder, what="label map")


def serve(
    pairs: Pairs, read: Callable[[Path], Tensor], *, name: str, domain: str, size: tuple[int, int]
) -> DrivingImages:
    """These images as a source with the 19 classes; `read` gives a label map in train ids."""
    return DrivingImages(
        pairs,
        lambda i: (read_image(pairs[i][0]), read(pairs[i][1])),
        CLASS_NAMES,
        name=name,
        domain=domain,
        size=size,
        files_of=pairs.__getitem__,
    )


def to_train_ids(
    labels: Integer[Tensor, "H W"], train_ids: Mapping[int, int], last: int, path: Path
) -> UInt8[Tensor, "H W"]:
    """Label numbers, 0 to `last`, to train ids; numbers without one are void. Raises DataError for any above `last`.

    By a table and never in place: the two kinds of numbers overlap.
    """
    if labels.max() > last:
        extra = [value for value in labels.unique().tolist() if value > last]
        raise DataError(
            f"{path} holds the values {extra[:8]}; label maps of its format hold 0 to {last}. It is of another "
            "release, or was saved in other numbers or in grey levels: restore it from the archive."
        )
    table = torch.full((last + 1,), VOID, dtype=torch.uint8)
    for number, train_id in train_ids.items():
        table[number] = train_id
    return table[labels.long()]

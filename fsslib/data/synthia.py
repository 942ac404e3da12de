"""SYNTHIA-RAND-CITYSCAPES, 9,400 rendered street scenes with 16 of Cityscapes' classes (Ros et al., CVPR 2016).

Expected below the data folder, as the archive SYNTHIA_RAND_CITYSCAPES.rar unpacks:

    SYNTHIA/RAND_CITYSCAPES/RGB/0000000.png
    SYNTHIA/RAND_CITYSCAPES/GT/LABELS/0000000.png       16 bits a channel: red is the class 0..22, green the instance

GT/COLOR is for looking at; its README warns of training on it.
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int32, UInt8
from PIL import Image
from torch import Tensor

from fsslib.data.by_hand import SYNTHIA as HOW_TO_GET
from fsslib.data.decode import DataError, read_with
from fsslib.data.driving import DrivingImages
from fsslib.data.street_classes import find_pairs, serve, to_train_ids

IMAGES = 9_400
"""Images of the release."""

TRAIN_IDS = dict(enumerate((10, 2, 0, 1, 4, 8, 5, 13, 7, 11, 18, 17), start=1))
TRAIN_IDS |= dict(enumerate((6, 9, 12, 14, 15, 16, 3), start=15))
"""Train id of each class; 0 void, 13 parking slot and 14 roadwork have none; 13, 16, 18 and 20 never occur."""

LANE_MARKING = 22


def synthia(
    root: Path | str | None = None, *, size: tuple[int, int] = (512, 1024), lane_marking_is_road: bool = False
) -> DrivingImages:
    """All images with 19 classes at `size` (height, width), of which terrain, truck and train never occur.

    `root` holds the folder SYNTHIA (default: `data_root()`). Ids are such as "0000000", the domain is "synthia", the
    images' own size is 760 x 1280. Lane markings, 1.4 % of all pixels, are void as in most released code (CLAN,
    FADA, DAFormer), or road as in PixDA's: scores of the two do not compare, so the name of such a source is
    "synthia_lanes".

    Raises DataError for missing folders and images without a label map; a damaged file, one that is not in 16 bits, or
    one with other values is found when it is first asked for.
    """
    folders = ("RAND_CITYSCAPES/RGB", "RAND_CITYSCAPES/GT/LABELS")
    pairs = find_pairs(root, "SYNTHIA", folders, HOW_TO_GET)
    train_ids = TRAIN_IDS | ({LANE_MARKING: 0} if lane_marking_is_road else {})

    def read(path: Path) -> UInt8[Tensor, "H W"]:
        return to_train_ids(read_red_16_bit(path), train_ids, LANE_MARKING, path)

    name = "synthia_lanes" if lane_marking_is_road else "synthia"
    return serve(pairs, read, name=name, domain="synthia", size=size)


def read_red_16_bit(path: Path) -> Int32[Tensor, "H W"]:
    """The red channel of a PNG with three channels of 16 bits, 0 to 65535.

    Pillow has no such images: it keeps the first byte of each value, which is 0 for every class, and says nothing. Told
    that the bytes come in the other order it keeps the second; so the file is decoded twice. torchvision reads 16 bits,
    but a damaged file ends the whole process. Raises DataError for such a file, and for one in another format.
    """

    def byte(order: str) -> Tensor:
        def red(image: Image.Image) -> Tensor:
            formats = [tile[3] for tile in image.tile]
            if formats != ["RGB;16B"]:
                raise DataError(
                    f"{path} is not a PNG with three channels of 16 bits, but {image.format} in mode {image.mode} "
                    f"({formats}). A program that knows 8 bits alone has saved it, and the classes are lost: restore "
                    "it from the archive."
                )
            image.tile = [(*image.tile[0][:3], order)]
            return torch.from_numpy(np.array(image)[..., 0])

        return read_with(path, red)

    return 256 * byte("RGB;16B").int() + byte("RGB;16L")

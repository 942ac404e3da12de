"""Cityscapes, 5,000 finely labelled images of 50 cities (Cordts et al., CVPR 2016): train and val, with 19 classes.

Expected below the data folder, as the archives leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip unpack:

    Cityscapes/leftImg8bit/{train,val}/aachen/aachen_000000_000019_leftImg8bit.png
    Cityscapes/gtFine/{train,val}/aachen/aachen_000000_000019_gtFine_labelIds.png       0..33

Where a split has no labelIds, the label maps in train ids that cityscapesScripts makes are read
(..._gtFine_labelTrainIds.png). Parts of a split are a data set too: a few cities, a few images.
"""

import re
from pathlib import Path

from jaxtyping import UInt8
from torch import Tensor

from fsslib.data.by_hand import CITYSCAPES as HOW_TO_GET
from fsslib.data.decode import PALETTES, DataError, read_label_map
from fsslib.data.driving import DrivingImages
from fsslib.data.street_classes import CITYSCAPES_TRAIN_IDS, TRAIN_ID_COLOURS, find_pairs, serve, to_train_ids

IMAGES_PER_CITY = {
    "train": {"aachen": 174, "bochum": 96, "bremen": 316, "cologne": 154, "darmstadt": 85, "dusseldorf": 221}
    | {"erfurt": 109, "hamburg": 248, "hanover": 196, "jena": 119, "krefeld": 99, "monchengladbach": 94}
    | {"strasbourg": 365, "stuttgart": 196, "tubingen": 144, "ulm": 95, "weimar": 142, "zurich": 122},
    "val": {"frankfurt": 267, "lindau": 59, "munster": 174},
}
"""The release: 2,975 images of 18 cities to train on, 500 of 3 others to test on."""

PIXDA_ONE_SHOT = (
    *("aachen_000082_000019", "bochum_000000_016758", "bremen_000167_000019", "cologne_000042_000019"),
    *("darmstadt_000054_000019", "dusseldorf_000145_000019", "erfurt_000012_000019", "hamburg_000000_008221"),
    *("hanover_000000_055937", "jena_000029_000019", "krefeld_000000_026919", "monchengladbach_000000_031623"),
    *("strasbourg_000001_034494", "stuttgart_000019_000019", "tubingen_000020_000019", "ulm_000077_000019"),
    *("weimar_000110_000019", "zurich_000050_000019"),
)
"""The image of each city that PixDA's released code trains on at one shot: `cityscapes().restricted(PIXDA_ONE_SHOT)`.

One draw, fixed: how much a score depends on it the release does not say. Draws of one's own, K of every city:
`fsslib.data.sampling.k_per_group(source.ids, city_of, k, seed=...)`.
"""

TRAIN_IDS_ENDING = "_gtFine_labelTrainIds.png"


def cityscapes(
    root: Path | str | None = None, *, split: str = "train", size: tuple[int, int] = (512, 1024)
) -> DrivingImages:
    """The images of a split with 19 classes at `size` (height, width); ids are such as "aachen_000000_000019".

    `root` holds the folder Cityscapes (default: `data_root()`). The images' own size is 1024 x 2048. The domain is
    "cityscapes". Raises ValueError for another split than train or val, DataError for missing folders, images without a
    label map and names that tell no city; a damaged file, or one with other values, is found when it is first asked
    for.
    """
    if split not in IMAGES_PER_CITY:
        raise ValueError(f"The splits of Cityscapes with public labels are train and val; found {split!r}.")
    pairs = find_pairs(
        root,
        "Cityscapes",
        (f"leftImg8bit/{split}", f"gtFine/{split}"),
        HOW_TO_GET,
        pattern="*/*",
        image_ending="_leftImg8bit.png",
        label_endings=("_gtFine_labelIds.png", TRAIN_IDS_ENDING),
    )
    for image_id in pairs:
        city_of(image_id)
    return serve(pairs, _read_labels, name="cityscapes", domain="cityscapes", size=size)


def city_of(image_id: str) -> str:
    """The city of an image: "aachen" of "aachen_000000_000019". Raises DataError for a name that tells none."""
    match = re.fullmatch(r"([a-z-]+)_\d{6}_\d{6}", image_id)
    if not match:
        raise DataError(
            f"The image name {image_id!r} is not of Cityscapes' form city_sequence_frame, as aachen_000000_000019 is. "
            "Restore the name as published: by it K images of every city are drawn."
        )
    return match[1]


def _read_labels(path: Path) -> UInt8[Tensor, "H W"]:
    if path.name.lower().endswith(TRAIN_IDS_ENDING.lower()):
        return read_label_map(path, TRAIN_ID_COLOURS)
    return to_train_ids(read_label_map(path, PALETTES["cityscapes"]), CITYSCAPES_TRAIN_IDS, 33, path)

"""The magnetic-tile defects of Huang, Qiu and Yuan ("Surface defect saliency of magnetic tile", 2020).

Expected below the data folder, as the archive unpacks:

    MagneticTile/MT_Break/Imgs/exp1_num_116934.jpg       a grey photograph
    MagneticTile/MT_Break/Imgs/exp1_num_116934.png       its defect: 255, all else 0
"""

import re
from collections.abc import Collection
from pathlib import Path

from fsslib.data.images import MINIMUM_SHARE
from fsslib.data.masks import MaskedImages, files_in, paired
from fsslib.data.names import class_id, named
from fsslib.paths import data_root

DEFECTS = {name: class_id(name.lower()) for name in ("Blowhole", "Break", "Crack", "Fray", "Uneven")}
"""Global id of each defect; its images lie in the folder MT_NAME."""

TILE_GAP = 500
"""Images whose numbers are less than this apart show one tile; see `tiles`."""

HOW_TO_GET = """To get it, unpack github.com/abin24/Magnetic-tile-defect-datasets as {folder}, so that {folder}/MT_Break
is there. Set FSSLIB_DATA to the folder that holds MagneticTile. The toy world (data "toy") needs no download."""


class MagneticTile(MaskedImages):
    """Photographs of magnetic tiles with one kind of defect each; an image's id is "Break/exp1_num_116934".

    `root` holds the folder MagneticTile (default: `data_root()`). The class of an image is its folder, its pixels are
    those of 128 and more in the mask. MT_Free (tiles without defects) and whatever else lies about is left alone, and
    suffixes may be in capitals. Grey images are given as RGB with three equal channels.

    A tile was photographed up to six times, and the masks of its images are nearly the same. Supports therefore come
    from other tiles than the query (see `tiles`).

    Blowhole and Crack cover 0.4 % of an image in the median: one cell of the 16 x 16 grid that 256 pixels have at
    stride 16, or parts of several. Of 32 images of each defect, a `minimum_share` of 2 %, which is that of all data
    sets, leaves 32 of Break and Uneven, 23 of Fray, 2 of Crack and none of Blowhole; 0.5 % leaves 32, 28, 13 and 8, of
    the small defects only the largest; 0.3 % leaves 30 or more of each. Go below 2 % for a method with a finer grid.

    Raises DataError for missing folders, an image without its mask or the reverse, and as `MaskedImages`.
    """

    def __init__(
        self,
        root: Path | str | None = None,
        *,
        size: int = 256,
        minimum_share: float = MINIMUM_SHARE,
        keep_originals: bool = False,
    ):
        files = find_files(root)
        super().__init__(
            {image_id: (*pair, DEFECTS[image_id.partition("/")[0]]) for image_id, pair in files.items()},
            named(DEFECTS.values()),
            name="magnetic_tile",
            domain="magnetic_tile",
            size=size,
            minimum_share=minimum_share,
            keep_originals=keep_originals,
            group_of=tiles(files).__getitem__,
        )


def find_files(root: Path | str | None = None) -> dict[str, tuple[Path, Path]]:
    """Image and mask of all defects by id. Raises DataError with the next step when something is missing."""
    folder = (data_root() if root is None else Path(root)) / "MagneticTile"
    found = {}
    for defect in DEFECTS:
        beside = folder / f"MT_{defect}" / "Imgs"
        images, masks = (files_in(beside, suffix, HOW_TO_GET.format(folder=folder)) for suffix in (".jpg", ".png"))
        found |= {f"{defect}/{name}": pair for name, pair in paired(images, masks, beside).items()}
    return found


def tiles(ids: Collection[str]) -> dict[str, str]:
    """The tile of each image, named after the lowest number among its images.

    "exp1_num_116934" to "exp6_num_117060" are one tile under six exposures: numbers that follow each other closely. The
    archive does not say where a tile ends; TILE_GAP parts them, and at worst takes two neighbours for one, which keeps
    more apart than needed. An image without a number is a tile of its own.
    """
    numbered = sorted((int(found[1]), i) for i in ids if (found := re.search(r"num_(\d+)$", i)))
    tile_of, last, tile = {i: i for i in ids}, None, ""
    for number, image_id in numbered:
        if last is None or number - last >= TILE_GAP:
            tile = f"tile {number}"
        tile_of[image_id], last = tile, number
    return tile_of

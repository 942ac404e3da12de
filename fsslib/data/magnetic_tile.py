"""The magnetic-tile defects of Huang, Qiu and Yuan ("Surface defect saliency of magnetic tile", 2020).

Expected below the data folder, as the archive unpacks:

    MagneticTile/MT_Break/Imgs/exp1_num_116934.jpg       a grey photograph
    MagneticTile/MT_Break/Imgs/exp1_num_116934.png       its defect: 255, all else 0
"""

import re
from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor

from fsslib.data.images import (
    MINIMUM_SHARE,
    DataError,
    ImageClasses,
    LabelledImageSet,
    classes_in,
    read_image,
    read_size,
    size_mismatch,
)
from fsslib.data.names import class_id, named
from fsslib.paths import data_root

DEFECTS = {name: class_id(name.lower()) for name in ("Blowhole", "Break", "Crack", "Fray", "Uneven")}
"""Global id of each defect; its images lie in the folder MT_NAME."""

TILE_GAP = 500
"""Images whose numbers are less than this apart show one tile; see `tiles`."""

HOW_TO_GET = """To get it, unpack github.com/abin24/Magnetic-tile-defect-datasets as {folder}, so that {folder}/MT_Break
is there. Set FSSLIB_DATA to the folder that holds MagneticTile. The toy world (data "toy") needs no download."""


class MagneticTile(LabelledImageSet):
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

    Raises DataError for missing folders, an image without its mask or the reverse, masks of another size than their
    image, and damaged masks. A damaged image is found when it is first used, or by `check()`.
    """

    def __init__(
        self,
        root: Path | str | None = None,
        *,
        size: int = 256,
        minimum_share: float = MINIMUM_SHARE,
        keep_originals: bool = False,
    ):
        self._files = find_files(root)
        super().__init__(
            {image_id: self._scan(image_id, size, minimum_share) for image_id in self._files},
            self._load_files,
            named(DEFECTS.values()),
            name="magnetic_tile",
            domain="magnetic_tile",
            size=size,
            keep_originals=keep_originals,
            group_of=tiles(self._files).__getitem__,
        )

    def _labels(self, image_id: str) -> Tensor:
        # Read as a picture, a mask may be stored in any mode: white is white.
        marked = read_image(self._files[image_id][1])[0] >= 128
        return marked.to(torch.uint8) * DEFECTS[image_id.partition("/")[0]]

    def _load_files(self, image_id: str) -> tuple[Tensor, Tensor]:
        return read_image(self._files[image_id][0]), self._labels(image_id)

    def _scan(self, image_id: str, size: int, minimum_share: float) -> ImageClasses:
        labels, image_size = self._labels(image_id), read_size(self._files[image_id][0])
        if image_size != tuple(labels.shape):
            raise DataError(size_mismatch(self._files[image_id][1], image_size, tuple(labels.shape)))
        return classes_in(labels, size, minimum_share=minimum_share)


def find_files(root: Path | str | None = None) -> dict[str, tuple[Path, Path]]:
    """Image and mask of all defects by id. Raises DataError with the next step when something is missing."""
    folder = (data_root() if root is None else Path(root)) / "MagneticTile"
    return {
        f"{defect}/{name}": pair
        for defect in DEFECTS
        for name, pair in find_pairs(folder, folder / f"MT_{defect}" / "Imgs").items()
    }


def find_pairs(root: Path, folder: Path) -> dict[str, tuple[Path, Path]]:
    """Image and mask by their common name in a folder Imgs. Raises DataError where one of the two is missing."""
    if not folder.is_dir():
        raise DataError(
            f"The magnetic tiles are not complete: there is no folder {folder}.\n" + HOW_TO_GET.format(folder=root)
        )
    images, masks = (
        {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() == suffix and path.name[0] != "."}
        for suffix in (".jpg", ".png")
    )
    for found, other, what in ((images, masks, "mask (.png)"), (masks, images, "image (.jpg)")):
        if lonely := sorted(found.keys() - other.keys()):
            more = f", nor have {len(lonely) - 1} more files there" if len(lonely) > 1 else ""
            raise DataError(
                f"{found[lonely[0]]} has no {what} beside it{more}. Unpack the archive again, or remove what is alone."
            )
    if not images:
        raise DataError(f"{folder} holds no images (.jpg). Unpack the archive again.")
    return {name: (images[name], masks[name]) for name in images}


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

"""SUIM, underwater photographs with seven classes (Islam et al., "Semantic Segmentation of Underwater Imagery", 2020).

Expected below the data folder, as the two archives unpack; one of the parts is enough:

    SUIM/{train_val,TEST}/images/d_r_47_.jpg     a photograph
    SUIM/{train_val,TEST}/masks/d_r_47_.bmp      its classes in eight colours; a copy as PNG is read too
"""

from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from fsslib.data.by_hand import SUIM as HOW_TO_GET
from fsslib.data.decode import DataError, colour_codes, hold_sizes, read_image, read_size
from fsslib.data.images import LabelledImageSet, classes_in, scan_all
from fsslib.data.masks import files_in, paired
from fsslib.data.names import class_id, named
from fsslib.paths import data_root

CLASS_NAMES = {
    1: "diver",
    2: "aquatic plant",
    3: "wreck",
    4: "robot",
    5: "reef",
    6: "fish",
    7: "sea floor",
}
"""The seven classes by the number that their colour spells, 4 red + 2 green + 1 blue; black, 0, is open water."""

GLOBAL_IDS = (0, *(class_id(name) for name in CLASS_NAMES.values()))
"""The classes' ids over all data sets, by number; open water is background."""

PARTS = ("train_val", "TEST")

LONGER, LARGER = 0.2, (8, 0.1)
"""A mask may be longer than its image by this share below, or larger by so many pixels and that share of its sides."""


class Suim(LabelledImageSet):
    """The photographs of both parts with seven classes; an image's id is "TEST/d_r_47_", its domain "suim".

    `root` holds the folder SUIM (default: `data_root()`). Open water is background, as in the few-shot papers; they
    count 3,859 pairs of image and class, for any pixel of a class counts, where here a class must be large
    (`classes_in`) for its image to be drawn.

    Divers are the class "person" of VOC and COCO (`fsslib.data.names.ALIASES`), with their gear: whoever learnt people
    has seen them, and asking for them as a new class would be a leak. The ids are the same, so that a task finds it.

    A mask that is a few pixels larger than its image, or longer below, is cropped to it, as released loaders do, and
    `notes` say so: that of f_r_1058_ is published at 590 x 430 pixels for 590 x 375. Only images with a mask count; the
    folders of masks for one class inside TEST/masks, and whatever else lies about, are left alone. The names tell no
    dive, so nothing keeps images of one dive apart.

    Opening reads every mask and the header of every image. Raises DataError for missing folders, a mask without its
    image or of another size, and as `colour_codes` for what is no map of eight colours. A damaged image is found
    when it is first used, or by `check()`.
    """

    def __init__(self, root: Path | str | None = None, *, size: int = 256, keep_originals: bool = False):
        self._files = find_files(root)
        super().__init__(
            scan_all(f"suim-{size}", self._files, lambda i: classes_in(_read_labels(*self._files[i]), size)),
            self._load_files,
            named(GLOBAL_IDS[1:]),
            name="suim",
            domain="suim",
            size=size,
            keep_originals=keep_originals,
            files_of=self._files.__getitem__,
        )
        if cropped := [image_id for image_id, pair in self._files.items() if _is_larger(*pair)]:
            self.notes = (f"{len(cropped)} masks are larger than their image and cropped to it: {', '.join(cropped)}.",)

    def _load_files(self, image_id: str) -> tuple[Tensor, Tensor]:
        image, mask = self._files[image_id]
        return read_image(image), _read_labels(image, mask)


def find_files(root: Path | str | None = None) -> dict[str, tuple[Path, Path]]:
    """Image and mask by id. Raises DataError with the next step when neither part is there or one is incomplete."""
    folder = (data_root() if root is None else Path(root)) / "SUIM"
    parts = [part for part in PARTS if (folder / part).is_dir()]
    if not parts:
        there = " or ".join(str(folder / part) for part in PARTS)
        raise DataError(f"SUIM is not there: there is no folder {there}.\n" + HOW_TO_GET.format(folder=folder))
    return {f"{part}/{name}": pair for part in parts for name, pair in find_pairs(folder / part).items()}


def find_pairs(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Image and mask of a part by their common name; suffixes may be in capitals, and a BMP goes before a PNG.

    Images without a mask are left out. Raises DataError for a mask without its image, and where no image has a mask.
    """
    images, pngs, bmps = (
        files_in(folder / part, suffix, "SUIM is not complete. Unpack the archive again.")
        for part, suffix in (("images", ".jpg"), ("masks", ".png"), ("masks", ".bmp"))
    )
    return paired(images, pngs | bmps, folder, all_masked=False)


def _is_larger(image: Path, mask: Path) -> bool:
    try:
        return read_size(mask) > read_size(image)
    except DataError:  # in a check, which names it when it reads the files
        return False


def _read_labels(image: Path, mask: Path) -> UInt8[Tensor, "H W"]:
    codes, (height, width) = colour_codes(mask), read_size(image)
    below, right = codes.shape[0] - height, codes.shape[1] - width
    a_little = 0 <= below <= min(LARGER[0], LARGER[1] * height) and 0 <= right <= min(LARGER[0], LARGER[1] * width)
    if not a_little and not (0 <= below <= LONGER * height and right == 0):
        hold_sizes(mask, (height, width), codes.shape)
    return torch.tensor(GLOBAL_IDS, dtype=torch.uint8)[codes[:height, :width].long()]

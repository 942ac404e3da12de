"""DeepGlobe land cover, satellite photographs cut into crops (CD-FSS: Lei et al., ECCV 2022; PATNet).

Expected below the data folder, either as PATNet published its crops or as IFA's script and `cut_crops` write them:

    Deepglobe/{1..6}/test/origin/119_sat_00.jpg                      a crop
    Deepglobe/{1..6}/test/groundtruth/119_sat_00.png                 where it shows that class, white on black
    Deepglobe/04_train_cat/{1..6}/test/origin/119_sat_00.jpg
    Deepglobe/04_train_cat/{1..6}/test/groundtruth/119_mask_00.png

`cut_crops` makes the latter of the photographs as published: Deepglobe/train/{119_sat.jpg,119_mask.png}.
"""

import shutil
from collections import Counter
from pathlib import Path

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from fsslib.data.by_hand import DEEPGLOBE as HOW_TO_GET
from fsslib.data.decode import DataError, colour_codes, hold_sizes, read_image, read_size, refuse
from fsslib.data.images import LabelledImageSet, classes_in, scan_all
from fsslib.data.masks import files_in, paired, read_mask
from fsslib.data.names import class_id, named
from fsslib.paths import data_root

CLASS_NAMES = {
    1: "agriculture land",
    2: "urban land",
    3: "rangeland",
    4: "forest land",
    5: "water",
    6: "barren land",
}
"""The six classes by their folder. Some published tables name urban land first, for the same folders."""

FOLDER_OF_COLOUR = {6: 1, 3: 2, 5: 3, 2: 4, 1: 5, 7: 6}
"""The folder of a class by the number that its colour spells, 4 red + 2 green + 1 blue; black, 0, is unknown."""

GLOBAL_IDS = {number: class_id(name) for number, name in CLASS_NAMES.items()}

CROPS = 6
"""Crops along either side of a photograph."""

SMALLEST_SHARE = 0.048
"""A crop is kept when the rarest of its two or more colours covers more than this share of it."""

CUT, LISTED = "04_train_cat", "crops.txt"
"""What `cut_crops` writes: a folder, and in it the list of its crops, one "4/119_sat_00" a line."""


class DeepGlobe(LabelledImageSet):
    """Crops of satellite photographs with six kinds of land; a crop's id is "119_sat_00", its domain "deepglobe".

    `root` holds the folder Deepglobe (default: `data_root()`). A crop lies once in the folder of each class it shows;
    here it is one image, and its masks are one label map. Unknown land is background, as in the published code.

    Supports come from other photographs than the query; published code draws both from one, as it happens.

    The number of crops differs from source to source, and scores with it: `images_by_class` has the counts.

    Raises DataError for missing folders, a crop without its mask or the reverse, masks that overlap or are of another
    size than their crop, crops that are not those of the list that `cut_crops` left, and as `read_mask`. A damaged
    image is found when it is first used, or by `check()`.
    """

    def __init__(self, root: Path | str | None = None, *, size: int = 256, keep_originals: bool = False):
        self._files = find_files(root)
        super().__init__(
            scan_all(
                f"deepglobe-{size}",
                {crop: self._all_files(crop) for crop in self._files},
                lambda crop: classes_in(self._labels(crop), size),
            ),
            self._load_files,
            named(GLOBAL_IDS.values()),
            name="deepglobe",
            domain="deepglobe",
            size=size,
            keep_originals=keep_originals,
            group_of=photograph_of,
            files_of=self._all_files,
        )

    def _all_files(self, crop: str) -> tuple[Path, ...]:
        image, masks = self._files[crop]
        return (image, *masks.values())

    def _labels(self, crop: str) -> UInt8[Tensor, "H W"]:
        image, masks = self._files[crop]
        labels = torch.zeros(read_size(image), dtype=torch.uint8)
        for number, path in masks.items():
            marked = read_mask(path)
            hold_sizes(path, labels.shape, marked.shape)
            if labels[marked].any():
                raise DataError(f"{path} overlaps another class's mask of this crop. Cut or unpack the crops again.")
            labels[marked] = GLOBAL_IDS[number]
        return labels

    def _load_files(self, crop: str) -> tuple[Tensor, Tensor]:
        return read_image(self._files[crop][0]), self._labels(crop)


def photograph_of(crop: str) -> str:
    """The photograph that a crop was cut from: "119_sat" for "119_sat_00"."""
    return crop.rpartition("_")[0]


def find_files(root: Path | str | None = None) -> dict[str, tuple[Path, dict[int, Path]]]:
    """Each crop's image, and its masks by class folder. Raises DataError with the next step when one is missing."""
    folder = (data_root() if root is None else Path(root)) / "Deepglobe"
    how_to_get = HOW_TO_GET.format(folder=folder)
    if (folder / CUT).is_dir():
        folder = folder / CUT
    found: dict[str, tuple[Path, dict[int, Path]]] = {}
    for number in CLASS_NAMES:
        part = folder / str(number) / "test"
        images = files_in(part / "origin", ".jpg", how_to_get)
        masks = files_in(part / "groundtruth", ".png", how_to_get)
        masks = {name.replace("_mask_", "_sat_"): path for name, path in masks.items()}
        for crop, (image, mask) in paired(images, masks, part).items():
            found.setdefault(crop, (image, {}))[1][number] = mask
    if (folder / LISTED).is_file():
        listed = set((folder / LISTED).read_text(encoding="utf-8").split())
        there = {f"{number}/{crop}" for crop, (_, masks) in found.items() for number in masks}
        refuse(
            {
                crop: f"{folder / LISTED} does not list the crops there: {crop} is {how}."
                for crops, how in ((listed - there, "missing"), (there - listed, "not on the list"))
                for crop in sorted(crops)
            },
            f"Delete {folder} and cut the crops again.",
        )
    return found


def cut_crops(root: Path | str | None = None) -> dict[str, int]:
    """Cut the photographs of Deepglobe/train into crops, by PATNet's rule; the number of crops of each class.

    A photograph is cut into 6 x 6 crops, of 408 pixels for its 2448. A crop is kept when its mask has two colours or
    more, unknown land among them, and each covers more than SMALLEST_SHARE of it; it is written once for each class it
    shows. Colours count as on from 128, as the data set's own description says, where PATNet's script asks for exact
    ones. Images are stored as JPEG again, at quality 95, as there; another encoder, other bytes.

    All is written under another name and renamed at the end, so a run that was stopped leaves nothing half done. Raises
    DataError when the crops are there already, for missing or damaged photographs and masks, and for odd sizes.
    """
    folder = (data_root() if root is None else Path(root)) / "Deepglobe"
    if (folder / CUT).exists():
        raise DataError(f"The crops are there already: {folder / CUT}. Delete that folder to cut them again.")
    found = files_in(folder / "train", ".jpg", HOW_TO_GET.format(folder=folder))
    masks = files_in(folder / "train", ".png", HOW_TO_GET.format(folder=folder))
    pairs = paired(
        {name.removesuffix("_sat"): path for name, path in found.items()},
        {name.removesuffix("_mask"): path for name, path in masks.items()},
        folder / "train",
    )
    unfinished = folder / f"{CUT}.part"
    shutil.rmtree(unfinished, ignore_errors=True)
    for number in CLASS_NAMES:
        for part in ("origin", "groundtruth"):
            (unfinished / str(number) / "test" / part).mkdir(parents=True)
    written = []
    for name, (image_path, mask_path) in tqdm(sorted(pairs.items()), "cutting crops", leave=False, disable=None):
        image, codes = read_image(image_path), colour_codes(mask_path)
        hold_sizes(mask_path, image.shape, codes.shape)
        height, width = codes.shape
        for i in range(CROPS):
            for j in range(CROPS):
                rows = slice(i * height // CROPS, (i + 1) * height // CROPS)
                columns = slice(j * width // CROPS, (j + 1) * width // CROPS)
                colours, counts = codes[rows, columns].unique(return_counts=True)
                if len(colours) < 2 or counts.min() <= SMALLEST_SHARE * counts.sum():
                    continue
                picture = Image.fromarray(image[:, rows, columns].permute(1, 2, 0).numpy())
                for colour in set(colours.tolist()) & FOLDER_OF_COLOUR.keys():
                    number = FOLDER_OF_COLOUR[colour]
                    written.append(f"{number}/{name}_sat_{i}{j}")
                    part = unfinished / str(number) / "test"
                    picture.save(part / "origin" / f"{name}_sat_{i}{j}.jpg", quality=95)
                    marked = (codes[rows, columns] == colour).to(torch.uint8) * 255
                    Image.fromarray(marked.numpy()).save(part / "groundtruth" / f"{name}_mask_{i}{j}.png")
    (unfinished / LISTED).write_text("".join(f"{line}\n" for line in sorted(written)), encoding="utf-8")
    unfinished.rename(folder / CUT)
    counts = Counter(int(line.partition("/")[0]) for line in written)
    return {class_name: counts[number] for number, class_name in CLASS_NAMES.items()}

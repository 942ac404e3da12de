"""What no pattern can say of a data set: its quirks, each a small function that its row in `sets` names."""

import csv
import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Integer, UInt8
from PIL import Image
from torch import Tensor

from fsslib.data.decode import PALETTES, DataError, hold_sizes, read_label_map, read_size, read_with, refuse
from fsslib.data.layouts import Found, foreign, missing
from fsslib.data.names import fss_1000
from fsslib.episodes import VOID

VOC_PARTS, CAMVID_PARTS = ("trainaug", "train", "val"), ("train", "val", "test")

STREETS = """road, sidewalk, building, wall, fence, pole, traffic light, traffic sign, vegetation, terrain, sky, person,
rider, car, truck, bus, train, motorcycle, bicycle"""
STREETS = tuple(" ".join(name.split()) for name in STREETS.split(","))
"""The 19 classes that Cityscapes is scored on, in the order of their train ids, 0 to 18."""

CITYSCAPES = dict(zip((7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33), STREETS))

GTA5_MISMATCHES = 60
"""Frames of GTA5 whose label map has another size than the image: its page gives the number and no names."""

FSS_LEFT_OUT = ("bamboo_slip/7", "peregine_falcon/8")
"""Images of FSS-1000 whose mask is none, as its users report (issues 8, 17 and 25 there) and code built on it leaves
out: one is not black and white, one is a photograph of 960 x 480 pixels. Both are of test classes, which have 2,398."""

TILE_GAP = 500
"""MagneticTile: images whose numbers are less than this apart show one tile."""

LONGER, LARGER = 0.2, (8, 0.1)
"""SUIM: a mask may be longer than its image by this share below, or larger by so many pixels and that share of its
sides."""

CUT, LISTED = "Deepglobe/04_train_cat", "crops.txt"
"""What `fsslib.data.prepare.cut_crops` writes: a folder, and in it the list of its crops, one "4/119_sat_00" a line."""


# Which images count


def voc_lists(root: Path, part: str | None) -> dict[str, str]:
    """The images that VOC's lists name, each with the first line that does: of all, of one, or of a path to a .txt.

    Of the lists of other repositories only the image's name is read: "2007_000033__01" (HSNet) and
    "JPEGImages/2007_000033.jpg SegmentationClassAug/2007_000033.png" (PFENet).
    """
    voc = root / "VOCdevkit" / "VOC2012"
    folder = voc / "ImageSets" / "Segmentation"
    paths = [path for name in VOC_PARTS if (path := folder / f"{name}.txt").is_file()]
    if part is not None:
        paths = [voc / part if part.endswith(".txt") else folder / f"{part}.txt"]
    if not paths:
        raise DataError(
            f"No list of images: {folder} holds none of {', '.join(f'{name}.txt' for name in VOC_PARTS)}. train.txt "
            "and val.txt come with VOC 2012, trainaug.txt with the SBD masks."
        )
    return _named(paths, lambda line: [re.sub(r"__\d+$", "", Path(line.split()[0]).stem)])


def camvid_lists(root: Path, part: str | None) -> dict[str, str]:
    """The images that CamVid's lists name, "train/X.png trainannot/X.png" a line; the paths are of any machine, and an
    early release has all of a list in one line."""

    def pairs(line: str) -> list[str]:
        names = [Path(text).stem for text in line.split()]
        if names[::2] != names[1::2]:
            raise DataError(
                'should hold an image and its label map, such as "train/X.png trainannot/X.png" (names without '
                f"spaces); found: {line.strip()[:120]!r}."
            )
        return names[::2]

    return _named([root / "CamVid" / f"{p}.txt" for p in ([part] if part else CAMVID_PARTS)], pairs)


def _named(paths: Iterable[Path], ids: Callable[[str], list[str]]) -> dict[str, str]:
    named: dict[str, str] = {}
    for path in paths:
        if not path.is_file():
            there = ", ".join(sorted(p.name for p in path.parent.glob("*.txt"))) or "no lists"
            raise DataError(f"The list {path} does not exist; its folder holds: {there}. Restore it as published.")
        for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
            try:
                for image_id in ids(line) if line.strip() else ():
                    named.setdefault(image_id, f"{path}, line {number},")
            except DataError as error:
                raise DataError(f"{path}, line {number}, {error}") from error
    if not named:
        raise DataError(f"The lists name no image: {', '.join(map(str, paths))}. Restore them as published.")
    return named


def of_one_size(found: Found) -> None:
    """GTA5: frames whose label map has another size than the image are left out, and a warning names them.

    Whether one of the two was scaled or cropped is not known, and the labels would lie beside what they name. More of
    them than GTA5_MISMATCHES are a damaged copy.
    """
    different = {}
    for image_id, place in found.files.items():
        (labels,) = place.labels.values()
        try:
            sizes = read_size(place.image), read_size(labels)
        except DataError as error:
            refuse({image_id: str(error)}, "")
            continue
        try:
            hold_sizes(labels, *sizes)
        except DataError as error:
            different[image_id] = str(error)
    if len(different) > GTA5_MISMATCHES:
        refuse(different, f"In the release {GTA5_MISMATCHES} frames are so, and left out.")
    elif different:
        warnings.warn(
            f"GTA5: {len(different)} of {len(found.files)} frames are left out, because their label map has another "
            f"size than the image: {', '.join(sorted(different))}. The release has {GTA5_MISMATCHES} such frames.",
            stacklevel=4,
        )
    found.files = {i: place for i, place in found.files.items() if i not in different}


def of_their_part(found: Found) -> None:
    """FSS-1000: the classes of the part, without the two images that are none."""
    asked = fss_1000(found.part)
    found.files = {i: p for i, p in found.files.items() if i.partition("/")[0] in asked and i not in FSS_LEFT_OUT}


def as_listed(found: Found) -> None:
    """DeepGlobe: where crops were cut here, these alone, and all of them."""
    folder = found.root / CUT
    if not folder.is_dir():
        return
    found.files = {i: place for i, place in found.files.items() if place.image.is_relative_to(folder)}
    if (folder / LISTED).is_file():
        listed = set((folder / LISTED).read_text(encoding="utf-8").split())
        there = {f"{of}/{crop}" for crop, place in found.files.items() for of in place.labels}
        refuse(
            {
                crop: f"{folder / LISTED} does not list the crops there: {crop} is {how}."
                for crops, how in ((listed - there, "missing"), (there - listed, "not on the list"))
                for crop in sorted(crops)
            },
            f"Delete {folder} and cut the crops again.",
        )


def isic_kinds(found: Found) -> None:
    """ISIC: the kind of each lesion by class_id.csv, "ISIC_0000000,nevus"."""
    path, kinds = found.root / "ISIC" / "class_id.csv", {}
    if not path.is_file():
        raise missing(found.layout.name, path, found.root)
    try:
        rows = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines(), skipinitialspace=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is no table in UTF-8 ({error}). Copy the published file again.") from error
    for number, row in enumerate(rows, start=1):
        kind = row[1].strip().replace("_", " ") if len(row) == 2 else ""
        if kind in found.layout.classes:
            kinds[row[0].strip()] = kind
        elif row and row != ["ID", "Class"]:
            raise DataError(
                f"{path}, line {number}: {','.join(row)!r} is not an image and one of "
                f"{', '.join(found.layout.classes)}. Copy the published file again."
            )
    unknown = sorted(found.files.keys() - kinds.keys())
    refuse({i: f"The class of {i} is not known: {path} does not list it." for i in unknown}, "Copy it again.")
    found.files = {i: replace(p, labels={kinds[i]: p.labels[""]}) for i, p in found.files.items() if i in kinds}


def larger_masks(found: Found) -> None:
    """SUIM: say which masks are larger than their image, and so `cropped`."""
    larger = []
    for image_id, place in sorted(found.files.items()):
        try:
            larger += [image_id] if read_size(place.labels[""]) > read_size(place.image) else []
        except DataError:  # in a check, which names it when it reads the files
            continue
    if larger:
        found.notes.append(f"{len(larger)} masks are larger than their image and cropped to it: {', '.join(larger)}.")


# Which images show the same


def tiles(ids: Iterable[str]) -> dict[str, str]:
    """MagneticTile: the tile of each image, named after the lowest number among its images.

    A tile was photographed up to six times, and the masks are nearly the same: "exp1_num_116934" to "exp6_num_117060",
    numbers that follow each other closely. The archive does not say where a tile ends; TILE_GAP parts them, and at
    worst takes two neighbours for one, which keeps more apart than needed. An image without a number is its own tile.
    """
    numbered = sorted((int(found[1]), i) for i in ids if (found := re.search(r"num_(\d+)$", i)))
    tile_of, last, tile = {i: i for i in ids}, None, ""
    for number, image_id in numbered:
        if last is None or number - last >= TILE_GAP:
            tile = f"tile {number}"
        tile_of[image_id], last = tile, number
    return tile_of


def before(pattern: str, advice: str) -> Callable[[Iterable[str]], dict[str, str]]:
    """The group of an image is the first part of its id, by a pattern for all of it: the city, the drive, the photo.

    Raises DataError with the advice for an id that is not of this form.
    """

    def groups(ids: Iterable[str]) -> dict[str, str]:
        matches = {i: re.fullmatch(pattern, i) for i in ids}
        if wrong := [i for i, match in matches.items() if match is None]:
            raise DataError(f"The name of the image {wrong[0]!r} is not of the set's form. {advice}")
        return {i: match[1] for i, match in matches.items()}

    return groups


DRIVES = {"0006R0": "day", "0016E5": "day", "Seq05VD": "day", "0001TP": "dusk"}
"""CamVid's four drives and when they took place."""

city_of_each = before(
    r"([a-z-]+)_\d{6}_\d{6}",
    "Cityscapes has city_sequence_frame, as aachen_000000_000019: restore the name as published, for K images of every "
    "city are drawn by it.",
)
drive_of_each = before(
    rf"({'|'.join(DRIVES)})_.*",
    f"It tells no drive of CamVid ({', '.join(DRIVES)}). An early release numbered the images: take the current one.",
)


# What a label map says


def cropped(numbers: Tensor, size: tuple[int, int], path: Path) -> Tensor:
    """SUIM: a mask that is a few pixels larger than its image, or longer below, is cropped, as released loaders do.

    That of f_r_1058_ is published at 590 x 430 pixels for 590 x 375.
    """
    (height, width), (rows, columns) = size, numbers.shape
    below, right = rows - height, columns - width
    a_little = 0 <= below <= min(LARGER[0], LARGER[1] * height) and 0 <= right <= min(LARGER[0], LARGER[1] * width)
    fits = a_little or (0 <= below <= LONGER * height and right == 0)
    return numbers[:height, :width] if fits else numbers


TRAIN_IDS = {number: train_id for train_id, number in enumerate(CITYSCAPES)}
TRAIN_ID_COLOURS = {c: (TRAIN_IDS.get(numbers[0], VOID),) for c, numbers in PALETTES["cityscapes"].items()}


def streets_map(path: Path) -> UInt8[Tensor, "H W"]:
    """Cityscapes' numbers, of labelIds or of the labelTrainIds that cityscapesScripts makes."""
    if not path.name.lower().endswith("_labeltrainids.png"):
        return read_label_map(path, PALETTES["cityscapes"])
    labels = read_label_map(path, TRAIN_ID_COLOURS)
    if (strange := (labels > 18) & (labels != VOID)).any():
        raise foreign(path, labels[strange], {*range(19), VOID}, "cityscapes in train ids")
    return torch.tensor([*CITYSCAPES, *[0] * 237], dtype=torch.uint8)[labels.long()]


def camvid_map(path: Path) -> UInt8[Tensor, "H W"]:
    return read_label_map(path, PALETTES["camvid"])


def read_red_16_bit(path: Path) -> Integer[Tensor, "H W"]:
    """SYNTHIA: the red channel of a PNG with three channels of 16 bits, 0 to 65535.

    Pillow has no such images: it keeps the first byte of each value, which is 0 for every class, and says nothing. Told
    that the bytes come in the other order it keeps the second; so the file is decoded twice. torchvision reads 16 bits,
    but a damaged file ends the whole process.
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

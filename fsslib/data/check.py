"""`fsslib data check NAME`: every file of a data set read once, counted, and some of it drawn to look at."""

import colorsys
import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from tqdm import tqdm

from fsslib.data import READERS, open_images
from fsslib.data.camvid import camvid
from fsslib.data.cityscapes import IMAGES_PER_CITY, cityscapes
from fsslib.data.coco import find_folder
from fsslib.data.decode import DataError, in_words, noting
from fsslib.data.fss1000 import LEFT_OUT
from fsslib.data.gta5 import IMAGES as GTA5_IMAGES
from fsslib.data.gta5 import MISMATCHES as GTA5_MISMATCHES
from fsslib.data.gta5 import gta5
from fsslib.data.splits import (
    BY_AREA,
    ON_GRID,
    Pair,
    check_full,
    coco_fold,
    coco_label_maps,
    label_maps,
    pairs_of,
    pascal_fold,
)
from fsslib.data.synthia import IMAGES as SYNTHIA_IMAGES
from fsslib.data.synthia import synthia
from fsslib.episodes import VOID

SHEET = (6, 4)
"""Columns and rows of a contact sheet."""

SIDE = 220
"""Longer side of a picture on a contact sheet, in pixels."""


@runtime_checkable
class Checkable(Protocol):
    """What both kinds of real data set offer: `original` gives an image and its label map at their own size."""

    name: str
    class_names: Mapping[int, str]
    ids: tuple[str, ...]
    notes: tuple[str, ...]

    def original(self, image_id: str) -> tuple[Tensor, Tensor]: ...


@dataclass
class CheckReport:
    """What a data set turned out to hold. `str()` is the report for people."""

    name: str
    class_names: Mapping[int, str]
    images: int
    sha256: str
    notes: tuple[str, ...]
    damaged: dict[str, str]
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    images_by_class: Counter[int] = field(default_factory=Counter)
    pixels_by_class: Counter[int] = field(default_factory=Counter)
    empty: list[str] = field(default_factory=list)
    sheet: Path | None = None

    def __str__(self) -> str:
        if self.sizes:
            heights, widths = zip(*self.sizes)
            ((height, width), most) = self.sizes.most_common(1)[0]
            sizes = f"{min(widths)} x {min(heights)} to {max(widths)} x {max(heights)} pixels"
            sizes = (
                f"{width} x {height} pixels"
                if len(self.sizes) == 1
                else f"{sizes}, most often {width} x {height} ({most})"
            )
        else:
            sizes = "no image could be read"
        pixels = max(self.pixels_by_class.total(), 1)
        void = self.pixels_by_class[VOID] / pixels
        lines = [
            f"{self.name}: {self.images} images, list sha256 {self.sha256[:16]}",
            f"  sizes     {sizes}",
            f"  void      {void:.1%} of all pixels" if void else "  void      none",
            f"  no class  {len(self.empty)} images show nothing of any class" if self.empty else "",
            "  class                   images   share of pixels",
        ]
        for c, class_name in self.class_names.items():
            if self.images_by_class[c] or len(self.class_names) <= 100:
                lines.append(
                    f"    {class_name:22}{self.images_by_class[c]:6d}   {self.pixels_by_class[c] / pixels:.2%}"
                )
        if self.damaged:
            lines.append(f"  DAMAGED   {len(self.damaged)} files:")
            lines += [f"    {message}" for message in in_words(self.damaged)]
        else:
            lines.append("  damaged   none")
        lines += [f"  remark    {note}" for note in self.notes]
        if self.sheet:
            lines.append(f"  pictures  {self.sheet}")
        return "\n".join(line for line in lines if line)


def check(images: Checkable, damaged: Mapping[str, str] = {}, *, sheet: Path | None = None) -> CheckReport:
    """Decode every image and label map of a set. Damage is counted and named, not raised.

    `damaged` is what was wrong when the set was opened (`open_set`). With `sheet` some of the readable images, evenly
    spaced over the list, are drawn there with their classes tinted. The hash is that of the sorted ids, one a line:
    equal hashes, equal lists.
    """
    listed = hashlib.sha256("".join(f"{i}\n" for i in images.ids).encode()).hexdigest()
    report = CheckReport(images.name, images.class_names, len(images.ids), listed, images.notes, {**damaged})
    step = max(len(images.ids) / (SHEET[0] * SHEET[1]), 1)
    pictures = []
    for at, image_id in enumerate(tqdm(images.ids, f"checking {images.name}", unit="image", leave=False, disable=None)):
        if image_id in damaged:
            continue
        try:
            image, labels = images.original(image_id)
        except DataError as error:
            report.damaged[image_id] = str(error)
            continue
        report.sizes[tuple(labels.shape)] += 1
        values, counts = labels.unique(return_counts=True)
        found = dict(zip(values.tolist(), counts.tolist()))
        if extra := sorted(found.keys() - images.class_names.keys() - {0, VOID}):
            report.damaged[image_id] = f"{image_id}: the label map holds {extra[:8]}, which are no classes of the set."
        report.pixels_by_class.update(found)
        held = found.keys() & images.class_names.keys()
        report.images_by_class.update(held)
        if not held:
            report.empty.append(image_id)
        if sheet and at >= len(pictures) * step:
            pictures.append(_picture(image_id, image, labels, images.class_names))
    if sheet and pictures:
        draw_sheet(pictures, sheet)
        report.sheet = sheet
    return report


OPENERS = {
    "coco_val2017": partial(open_images, "coco", part="val2017"),
    "coco_train2014": partial(open_images, "coco", part="train2014"),
    "coco_val2014": partial(open_images, "coco", part="val2014"),
    "camvid": camvid,
    "cityscapes": cityscapes,
    "gta5": gta5,
    "synthia": synthia,
}
"""How sets are opened with all their classes that `fsslib.data.open_images` does not open, or in another part."""

PUBLISHED_IMAGES = {
    "pascal": 12_031,
    "coco": 118_287,
    "coco_val2017": 5_000,
    "coco_train2014": 82_783,
    "coco_val2014": 40_504,
    "camvid": 701,
    "suim": 1_635,
    "fss1000": 10_000 - len(LEFT_OUT),
    "isic": 2_594,
    "chest_xray": 704,
    "kvasir": 1_000,
    "cityscapes": sum(IMAGES_PER_CITY["train"].values()),
    "gta5": GTA5_IMAGES,
    "synthia": SYNTHIA_IMAGES,
}
"""Images with labels in a complete release; of cityscapes its training split. The others' are not published."""


def open_set(name: str) -> tuple[Checkable, dict[str, str]]:
    """A real data set by its name in the catalogue, and what is wrong with its files as far as opening it tells.

    Raises DataError listing the names, or as its reader does for what is more than single files.
    """
    names = {*READERS, *OPENERS}
    if name not in names:
        raise DataError(f"There is no data set {name!r} to check; there are {', '.join(sorted(names))}.")
    with noting() as damaged:
        try:
            return (OPENERS[name]() if name in OPENERS else open_images(name)), damaged
        except DataError as error:
            raise DataError("\n".join([*in_words(damaged), str(error)])) from error


def hold_against_published(name: str, images: int) -> list[str]:
    """Sentences on the number of images of a set, and on HSNet's lists of pairs, against what is published.

    Raises DataError where they differ: for whoever should have everything.
    """
    expected = PUBLISHED_IMAGES.get(name)
    if expected is None:
        return [f"{name}: {images} images; how many there should be is not published."]
    left_out = GTA5_MISMATCHES if name == "gta5" else 0
    if not expected - left_out <= images <= expected:
        raise DataError(f"{name}: {images} images are here, {expected} are published: the data set is not complete.")
    said = [f"{name}: {images} images, {expected} published."]
    if name == "pascal":
        for part, listed in (("trn", "trainaug"), ("val", "val")):
            maps = label_maps(open_images(name, lists=listed))
            said.append(_hold_pairs(pairs_of(maps, ON_GRID), pascal_fold, name, part))
    elif name in ("coco_train2014", "coco_val2014"):
        _, annotations = find_folder(part=name.removeprefix("coco_"))
        pairs = pairs_of(coco_label_maps(annotations), BY_AREA)
        said.append(_hold_pairs(pairs, coco_fold, "coco", "val" if name == "coco_val2014" else "trn"))
    return said


def _hold_pairs(pairs: Sequence[Pair], classes_of: Callable[[int], Sequence[int]], data: str, part: str) -> str:
    # A training list of COCO holds what a fold trains on; all others hold the fold's own classes.
    novel = [set(classes_of(fold)) for fold in range(4)]
    inside = (data, part) != ("coco", "trn")
    return check_full([[p for p in pairs if (p[1] in classes) == inside] for classes in novel], data, part)


def class_colour(class_id: int) -> tuple[int, int, int]:
    """A colour for a class: far apart for neighbouring ids, the same in every set."""
    red, green, blue = colorsys.hsv_to_rgb((0.61803398875 * class_id) % 1, 0.85, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def _picture(image_id: str, image: Tensor, labels: Tensor, class_names: Mapping[int, str]) -> Image.Image:
    """An image with its classes tinted and void in white, its id and classes written below."""
    tint = image.permute(1, 2, 0).double()
    marked = torch.zeros_like(labels, dtype=torch.bool)
    for value in labels.unique().tolist():
        if value in class_names or value == VOID:
            colour = torch.tensor((255, 255, 255) if value == VOID else class_colour(value), dtype=torch.float64)
            here = labels == value
            tint[here] = 0.5 * tint[here] + 0.5 * colour
            marked |= here
    tint[~marked] *= 0.8
    picture = Image.fromarray(tint.round().to(torch.uint8).numpy().astype(np.uint8))
    picture.thumbnail((SIDE, SIDE))
    cell = Image.new("RGB", (SIDE + 10, SIDE + 42), "white")
    cell.paste(picture, ((SIDE + 10 - picture.width) // 2, (SIDE - picture.height) // 2 + 2))
    draw, font = ImageDraw.Draw(cell), ImageFont.load_default(11)
    name = image_id if len(image_id) <= 34 else f"...{image_id[-31:]}"
    draw.text((5, SIDE + 4), name, "black", font)
    left = 5
    for value in (v for v in labels.unique().tolist() if v in class_names):
        word = f"{class_names[value]} "
        draw.text((left, SIDE + 20), word, tuple(round(0.7 * c) for c in class_colour(value)), font)
        left += round(draw.textlength(word, font))
    return cell


def draw_sheet(pictures: list[Image.Image], path: Path) -> None:
    """The pictures, all of one size, row by row in one PNG."""
    columns = min(SHEET[0], len(pictures))
    width, height = pictures[0].size
    sheet = Image.new("RGB", (columns * width, -(-len(pictures) // columns) * height), "white")
    for at, picture in enumerate(pictures):
        sheet.paste(picture, (at % columns * width, at // columns * height))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)

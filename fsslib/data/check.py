"""`fsslib data check NAME`: every file of a data set read once, counted, and some of it drawn to look at."""

import colorsys
import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from tqdm import tqdm

from fsslib.data.catalogue import entry_named
from fsslib.data.decode import DataError, in_words, noting
from fsslib.data.images import LabelledImageSet
from fsslib.data.quirks import GTA5_MISMATCHES
from fsslib.data.sets import open_images
from fsslib.episodes import VOID

SHEET = (6, 4)
"""Columns and rows of a contact sheet."""

SIDE = 220
"""Longer side of a picture on a contact sheet, in pixels."""


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
        sizes = "no image could be read"
        for (height, width), most in self.sizes.most_common(1):
            sizes = f"{width} x {height} pixels"
            if len(self.sizes) > 1:
                heights, widths = zip(*self.sizes)
                smallest, largest = (f"{end(widths)} x {end(heights)}" for end in (min, max))
                sizes = f"{smallest} to {largest} pixels, most often {width} x {height} ({most})"
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
            if (images := self.images_by_class[c]) or len(self.class_names) <= 100:
                lines.append(f"    {class_name:22}{images:6d}   {self.pixels_by_class[c] / pixels:.2%}")
        lines.append(f"  DAMAGED   {len(self.damaged)} files:" if self.damaged else "  damaged   none")
        lines += [f"    {message}" for message in in_words(self.damaged)] if self.damaged else []
        lines += [f"  remark    {note}" for note in self.notes]
        if self.sheet:
            lines.append(f"  pictures  {self.sheet}")
        return "\n".join(line for line in lines if line)


def check(images: LabelledImageSet, damaged: Mapping[str, str] = {}, *, sheet: Path | None = None) -> CheckReport:
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


def open_set(name: str) -> tuple[LabelledImageSet, dict[str, str]]:
    """A real data set by its name in the catalogue, and what is wrong with its files as far as opening it tells.

    Raises DataError listing the names, or as `open_images` does for what is more than single files.
    """
    with noting() as damaged:
        try:
            return open_images(name), damaged
        except DataError as error:
            raise DataError("\n".join([*in_words(damaged), str(error)])) from error


def hold_against_published(name: str, images: int) -> str:
    """A sentence on the number of images of a set against what is published.

    Raises DataError where they differ: for whoever should have everything.
    """
    entry = entry_named(name)
    if entry.images is None:
        return f"{entry.name}: {images} images; how many there should be is not published."
    left_out = GTA5_MISMATCHES if entry.name == "gta5" else 0
    if not entry.images - left_out <= images <= entry.images:
        raise DataError(
            f"{entry.name}: {images} images are here, {entry.images} are published: the data set is not complete. "
            "Unpack its archives again."
        )
    return f"{entry.name}: {images} images, {entry.images} published."


def class_colour(class_id: int) -> tuple[int, int, int]:
    """A colour for a class: far apart for neighbouring ids, the same in every set."""
    red, green, blue = colorsys.hsv_to_rgb((0.61803398875 * class_id) % 1, 0.85, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def _picture(image_id: str, image: Tensor, labels: Tensor, class_names: Mapping[int, str]) -> Image.Image:
    """An image with its classes tinted and void in white, its id and classes written below."""
    from torchvision.utils import draw_segmentation_masks  # here, because it takes a while

    colours = {c: class_colour(c) for c in labels.unique().tolist() if c in class_names} | {VOID: (255, 255, 255)}
    masks = labels == torch.tensor([*colours])[:, None, None]
    dimmed = torch.where(masks.any(0), image, 0.8 * image).to(torch.uint8)
    tinted = draw_segmentation_masks(dimmed, masks, alpha=0.5, colors=[*colours.values()])
    picture = Image.fromarray(tinted.permute(1, 2, 0).numpy())
    picture.thumbnail((SIDE, SIDE))
    cell = Image.new("RGB", (SIDE + 10, SIDE + 42), "white")
    cell.paste(picture, ((SIDE + 10 - picture.width) // 2, (SIDE - picture.height) // 2 + 2))
    draw, font, left = ImageDraw.Draw(cell), ImageFont.load_default(11), 5
    draw.text((left, SIDE + 4), image_id if len(image_id) <= 34 else f"...{image_id[-31:]}", "black", font)
    for c in sorted(colours.keys() - {VOID}):
        word = f"{class_names[c]} "
        draw.text((left, SIDE + 20), word, tuple(round(0.7 * value) for value in colours[c]), font)
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

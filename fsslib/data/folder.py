"""Your own images as a data set: a folder of pictures, and masks that are found by their names.

    photos/IMG_1.JPG     photos/IMG_1_mask.png     photos/IMG_2.JPG ...     the mask beside its picture, or
    photos/IMG_1.JPG     drawn/IMG_1.png           photos/IMG_2.JPG ...     in a folder of masks

One mask is enough to segment the other pictures (`fsslib.training.segment`); two or more make episodes.
"""

import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError
from torch import Tensor

from fsslib.data.images import DataError, ImageClasses, LabelledImageSet, as_rgb, classes_in
from fsslib.data.names import ALIASES, CLASS_IDS, class_id

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
"""Files that are pictures, in capitals or not."""

MASK_ENDING = "_mask"
CLUTTER = ("thumbs.db", "desktop.ini")
FLAT_COLOURS = 32
"""Up to so many colours a mask is a flat painting, in which every colour but black was meant."""

LOSSY = ("JPEG", "MPO", "WEBP")
"""Formats that blur: black beside white comes back as several dark greys, few enough to pass for a flat painting."""

OWN_CLASSES = 1_000_000
"""Ids of classes that no data set of fsslib has lie above this, by the hash of their name."""

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What brings the stored picture upright, by the value of EXIF's Orientation (tag 274)."""


@dataclass(frozen=True)
class DrawnMask:
    """A mask as it was understood: 1 is the object, at the upright picture's size; `rule` says what was taken for it.

    `remarks` are sentences on what the drawer may not have meant.
    """

    labels: UInt8[Tensor, "H W"]
    rule: str
    remarks: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        """Share of the picture that is the object."""
        return self.labels.double().mean().item()


@dataclass(frozen=True)
class Found:
    """The pictures of a folder and the masks that belong to them, by the picture's name without its suffix."""

    pictures: dict[str, Path]
    masks: dict[str, Path]
    remarks: tuple[str, ...]


class FolderImages(LabelledImageSet):
    """An episode source over the pictures of a folder that have a mask; made by `open_folder`.

    `pairs` are picture and mask of those that show the object, `unlabelled` the pictures without a mask, by name, and
    `notes` say how the folder and its masks were understood.
    """

    def __init__(self, found: Found, *, class_name: str, size: int, keep_originals: bool):
        number = own_class_id(class_name)
        pairs = {name: (found.pictures[name], mask) for name, mask in sorted(found.masks.items())}
        contents, understood, remarks = {}, [], []
        for name, (picture, path) in pairs.items():
            mask = read_drawn_mask(path, picture)
            shown = classes_in(mask.labels, size, minimum_share=0)
            contents[name] = ImageClasses(*(frozenset({number} if c else ()) for c in (shown.held, shown.large)))
            understood.append((path.name, mask.rule, mask.share))
            remarks += mask.remarks
        super().__init__(
            contents,
            lambda name: (read_picture(pairs[name][0]), read_drawn_mask(pairs[name][1], pairs[name][0]).labels),
            {number: class_name},
            name="folder",
            domain="folder",
            size=size,
            keep_originals=keep_originals,
            class_of=dict.fromkeys(pairs, number),
            files_of=pairs.__getitem__,
        )
        self.pairs = tuple(pairs[name] for name in self.images_by_class[number])
        self.unlabelled = {name: path for name, path in found.pictures.items() if name not in pairs}
        self.notes = (*describe_masks(understood), *remarks, *found.remarks)


def open_folder(
    images: Path | str,
    masks: Path | str | None = None,
    *,
    class_name: str = "object",
    size: int = 256,
    keep_originals: bool = False,
) -> FolderImages:
    """The pictures of the folder `images` that have a mask, as a data set of one class; see `find_pictures` for names.

    Pictures come upright (EXIF) and in RGB (`read_picture`); what a mask marks is told by `read_drawn_mask`. A class
    that other data sets have too ("dog") keeps its global id. An object may be as small as it likes, as long as one
    pixel of it is left at `size`; an empty mask says that its picture shows none.

    Raises DataError when there is no picture, no mask for any, or two of one name, and for a mask that cannot be
    understood. A damaged picture is found when it is first used, or by `check()`.
    """
    found = find_pictures(images, masks)
    if not found.masks:
        example = next(iter(found.pictures.values()))
        where = "beside it" if masks is None else f"in {masks}"
        raise DataError(
            f"None of the {len(found.pictures)} pictures in {images} has a mask. Draw one for a picture in which the "
            f"object is easy to see, white on black and of the picture's size, and save it {where} as "
            f"{example.stem}{MASK_ENDING}.png (for {example.name})." + "".join(f"\n{line}" for line in found.remarks)
        )
    return FolderImages(found, class_name=class_name, size=size, keep_originals=keep_originals)


def find_pictures(images: Path | str, masks: Path | str | None = None) -> Found:
    """The pictures of a folder and their masks; sub-folders and hidden files are left alone.

    NAME_mask.png (or .jpg ...) beside the picture NAME is its mask. So is, with a folder of `masks`, NAME.png or
    NAME_mask.png there. Capitals do not matter. Raises DataError for a folder that is not there or holds no
    picture, and for two files of one name.
    """
    images, remarks = Path(images), []
    files, left_alone = _picture_files(images)
    drawn = [path for path in files if _is_mask(path)]
    pictures = _by_name([path for path in files if not _is_mask(path)], "picture")
    if masks is not None and Path(masks).resolve() != images.resolve():
        more, left = _picture_files(Path(masks))
        drawn, left_alone = drawn + more, left_alone + left
    masks_by_name = _by_name(drawn, "mask")
    if not pictures:
        others = f" It has other files, such as {left_alone[0].name}." if left_alone else ""
        raise DataError(
            f"{images} holds no pictures ({', '.join(SUFFIXES)}).{others} Save pictures as JPEG or PNG, and put them "
            "into the folder itself: sub-folders are not searched."
        )
    if lonely := [path.name for name, path in masks_by_name.items() if name not in pictures]:
        remarks.append(f"Masks without a picture of their name, left alone: {some(lonely)}.")
    if left_alone:
        names = some([path.name for path in left_alone])
        remarks.append(f"Not read, for their names are none of pictures ({', '.join(SUFFIXES)}): {names}.")
    return Found(
        {path.stem: path for path in pictures.values()},
        {pictures[name].stem: path for name, path in masks_by_name.items() if name in pictures},
        tuple(remarks),
    )


def read_picture(path: Path | str) -> UInt8[Tensor, "3 H W"]:
    """A picture as viewers show it: turned upright by its EXIF, in RGB, on white where it is transparent.

    Raises DataError for a file that is missing, cut short or not a picture, and as `fsslib.data.images.as_rgb`.
    """
    return _opened(path, lambda image: as_rgb(ImageOps.exif_transpose(image), path))


def read_drawn_mask(path: Path | str, picture: Path | str) -> DrawnMask:
    """The mask of a picture, as its drawer meant it: colours count as they are seen, in whatever mode they are stored.

    - A mask with transparent and opaque parts marks what is opaque, black or not.
    - A flat painting (few colours, neither JPEG nor WebP) marks what is not black: 0 and 255, 0 and 1, any palette.
    - Any other, such as a JPEG or a soft brush, marks what is half as bright as its brightest pixel, or brighter.

    The mask has the picture's size, upright or as stored: cameras store a picture lying and note in its EXIF how to
    turn it, viewers show it upright, and some tools do not. The size tells which of the two was drawn on. Where both
    have one size the upright one is taken, and a remark says so.

    Raises DataError for a file that is damaged, of another size, or looks like a photograph.
    """
    path, picture = Path(path), Path(picture)
    stored, orientation = _opened(picture, _size_and_orientation)
    height, width = upright = stored[::-1] if orientation >= 5 else stored
    remarks = []

    def understand(opened: Image.Image) -> tuple[np.ndarray, str]:
        image = ImageOps.exif_transpose(opened)
        size = (image.height, image.width)
        if size not in (upright, stored):
            raise DataError(
                f"{path} is {image.width} x {image.height} pixels, its picture {picture.name} {width} x {height}. A "
                "mask has exactly the size of its picture: draw it on the picture itself and export it unscaled."
            )
        marked, rule = _marked(image, path, lossy=opened.format in LOSSY)
        if size != upright:
            marked = np.asarray(Image.fromarray(marked).transpose(TURNS[orientation]))
            remarks.append(f"{path.name} was drawn on the picture as it is stored, lying: turned upright with it.")
        elif orientation > 1 and stored == upright:
            remarks.append(
                f"{picture.name} is stored turned, and its mask would fit either way: {path.name} is taken as drawn on "
                "the picture as viewers show it."
            )
        return marked, rule

    marked, rule = _opened(path, understand)
    edge = np.concatenate([marked[0], marked[-1], marked[:, 0], marked[:, -1]])
    if not marked.any():
        remarks.append(f"{path.name} is empty: {picture.name} is taken to show no object.")
    elif marked.all():
        remarks.append(f"{path.name} marks the whole of {picture.name}, which leaves no background to compare with.")
    elif edge.mean() > 0.9:
        remarks.append(f"{path.name} marks nearly all of its border. If black is the object there, invert the mask.")
    return DrawnMask(torch.from_numpy(marked.astype(np.uint8)), rule, tuple(remarks))


def describe_masks(understood: Iterable[tuple[str, str, float]]) -> list[str]:
    """A sentence for each rule by which masks were understood; `understood` are file, rule and share of each."""
    by_rule: dict[str, list[str]] = {}
    for name, rule, share in understood:
        by_rule.setdefault(rule, []).append(f"{name} ({share:.1%} of the picture)")
    return [f"The object is {rule} in {some(names)}." for rule, names in by_rule.items()]


def own_class_id(name: str) -> int:
    """The global id of a class by its name; one that no data set has gets its own, the same everywhere."""
    if name in CLASS_IDS or name in ALIASES:
        return class_id(name)
    return OWN_CLASSES + zlib.crc32(name.encode()) % OWN_CLASSES


def _picture_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """The pictures of a folder by name, and what else lies there; hidden files and the system's own are neither."""
    if not folder.is_dir():
        found = "is a file; give the folder it lies in" if folder.exists() else "does not exist"
        raise DataError(f"{folder} {found}.")
    files = [path for path in sorted(folder.iterdir()) if path.is_file()]
    files = [path for path in files if path.name[0] != "." and path.name.lower() not in CLUTTER]
    pictures = [path for path in files if path.suffix.lower() in SUFFIXES]
    return pictures, [path for path in files if path not in pictures]


def _is_mask(path: Path) -> bool:
    return path.stem.lower().endswith(MASK_ENDING)


def _by_name(files: Iterable[Path], what: str) -> dict[str, Path]:
    """Files by their name in small letters, for a mask without the ending that makes it one."""
    named: dict[str, Path] = {}
    for path in files:
        name = path.stem.lower().removesuffix(MASK_ENDING if what == "mask" else "")
        if name in named:
            raise DataError(f"{named[name]} and {path.name} are two {what}s of one name. Rename or remove one of them.")
        named[name] = path
    return named


def _size_and_orientation(image: Image.Image) -> tuple[tuple[int, int], int]:
    """Height and width as stored, and EXIF's Orientation, 1 where there is none. Pillow turns TIFF as it loads it."""
    if image.format == "TIFF":
        image.load()
    orientation = image.getexif().get(0x0112, 1)
    return (image.height, image.width), orientation if orientation in TURNS else 1


def _marked(image: Image.Image, path: Path, *, lossy: bool) -> tuple[Bool[np.ndarray, "H W"], str]:
    """Which pixels of a mask are the object, and by which rule."""
    if image.has_transparency_data:
        alpha = np.asarray(image.convert("RGBA"))[..., 3]
        if alpha.min() < 128:
            return alpha >= 128, "what is not transparent"
    if image.mode == "F" or image.mode.startswith("I"):
        brightness, colours = np.asarray(image), None
        flat = len(np.unique(brightness)) <= FLAT_COLOURS
    else:
        seen = image.convert("RGB")
        red, green, blue = seen.split()
        brightness = np.asarray(ImageChops.lighter(ImageChops.lighter(red, green), blue))
        colours = seen.getcolors(FLAT_COLOURS)
        flat = colours is not None and not lossy
    peak = brightness.max()
    if peak <= 0:
        return np.zeros(brightness.shape, bool), "what is not black"
    if flat:
        several = colours is not None and sum(colour != (0, 0, 0) for _, colour in colours) > 1
        return brightness > 0, "what is not black, all colours as one," if several else "what is not black"
    between = ((brightness > 0.25 * peak) & (brightness < 0.75 * peak)).mean()
    if between > 0.3:
        raise DataError(
            f"{path} looks like a photograph: {between:.0%} of it is neither dark nor bright. A mask is black where "
            "the object is not. Save it as a PNG with the object in white on black."
        )
    return brightness >= 0.5 * peak, "what is at least half as bright as the brightest pixel"


def _opened(path: Path | str, use: Callable[[Image.Image], Any]) -> Any:
    """What `use` makes of the picture in a file; whatever goes wrong in reading is a DataError in words."""
    path = Path(path)
    if not path.is_file():
        found = "is a folder, where a picture is wanted" if path.is_dir() else "does not exist"
        raise DataError(f"{path} {found}.")
    try:
        with Image.open(path) as image:
            return use(image)
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(
            f"{path} is not a picture, or of a kind that cannot be read here. If a viewer shows it, save it from there "
            "as JPEG or PNG."
        ) from error
    # Pillow reports damage in many ways: from its PNG reader as SyntaxError, from EXIF as struct.error.
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
        raise DataError(
            f"{path} cannot be read ({error}). It is damaged or cut short: copy it again, or leave it out."
        ) from error


def some(names: Sequence[str], count: int = 5) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more

"""Your own images as a data set: a folder of pictures, and masks that are found by their names.

    photos/IMG_1.JPG     photos/IMG_1_mask.png     photos/IMG_2.JPG ...     the mask beside its picture,
    photos/IMG_1.JPG     photos/IMG_1.png (or .json, .npy)                  of its name, if it is plainly a mask,
    photos/IMG_1.JPG     drawn/IMG_1.png           photos/IMG_2.JPG ...     in a folder of masks, or
    photos/IMG_1.JPG     drawn/IMG_1/1.png, 2.png ...                       several of one picture

One mask is enough to segment the other pictures (`fsslib.training.segment`); two or more make episodes.
"""

import re
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fsslib.data.decode import DataError
from fsslib.data.drawn import (
    JPEG,
    SUFFIXES,
    Choice,
    DrawnMask,
    files_in,
    mask_files,
    read_drawn_mask,
    read_picture,
    some,
)
from fsslib.data.images import ImageClasses, LabelledImageSet, classes_in
from fsslib.data.layouts import Place
from fsslib.data.names import ALIASES, CLASS_IDS, class_id
from fsslib.data.outlines import key, listed_in

MASK_ENDING = "_mask"
OF_PICTURE = re.compile(
    r"(.+?)[ _.-](?:cp_)?(?:masks?|seg|segmentation|labels?|gt)(?:[ _-]?\(?\d+\)?)?|masks?[ _.-](.+)"
)
"""A mask beside its picture IMG, as tools name it: IMG_mask, IMG-labels, mask_IMG; one of several, as IMG_mask (3)."""

OWN_CLASSES = 10_000
"""Ids of classes that no data set of fsslib has lie above this, by the hash of their name."""


@dataclass(frozen=True)
class Found:
    """The pictures of a folder and the masks that belong to them, by the picture's name without its suffix."""

    pictures: dict[str, Path]
    masks: dict[str, tuple[Path, ...]]
    remarks: tuple[str, ...]


class FolderImages(LabelledImageSet):
    """The pictures of the folder `images` that have a mask, as a data set of one class; see `find_pictures` for names.

    `pairs` are picture and mask of those that show the object, a pair for each mask, `unlabelled` the pictures without
    a mask, by name, and `notes` say how the folder and its masks were understood.

    Pictures come upright (EXIF) and in RGB (`read_picture`); what a mask marks is told by `read_drawn_mask`, with
    `choose`. A class that other data sets have too ("dog") keeps its global id. An object may be as small as it likes,
    as long as one pixel of it is left at `size`; an empty mask says that its picture shows none.

    Raises DataError when there is no picture, no mask for any, or two of one name, and for a mask that cannot be
    understood. A damaged picture is found when it is first used.
    """

    def __init__(
        self,
        images: Path | str,
        masks: Path | str | None = None,
        *,
        class_name: str = "object",
        size: int = 256,
        choose: Choice = None,
    ):
        found, number = find_pictures(images, masks), own_class_id(class_name)
        if not found.masks:
            example = next(iter(found.pictures.values()))
            where = "beside it" if masks is None else f"in {masks}"
            raise DataError(
                f"None of the {len(found.pictures)} pictures in {images} has a mask. Draw one for a picture in which "
                f"the object is easy to see, white on black and of the picture's size, and save it {where} as "
                f"{example.stem}{MASK_ENDING}.png (for {example.name})." + "".join(f"\n{r}" for r in found.remarks)
            )
        super().__init__(
            {name: Place(None, found.pictures[name], dict(enumerate(drawn))) for name, drawn in found.masks.items()},
            {number: class_name},
            name="folder",
            domain="folder",
            size=size,
        )
        self._number, self._choose, self.contents = number, choose, {}
        understood = []
        for name in self.files:
            understood.append(mask := self._mask(name))
            shown = classes_in(mask.labels, size, minimum_share=0)
            self.contents[name] = ImageClasses(*(frozenset({number} if c else ()) for c in (shown.held, shown.large)))
        places = [self.files[name] for name in self.images_by_class[number]]
        self.pairs = tuple((place.image, mask) for place in places for mask in place.labels.values())
        self.unlabelled = {name: path for name, path in found.pictures.items() if name not in self.files}
        self.notes = (*describe_masks(understood), *found.remarks)

    def _mask(self, name: str) -> DrawnMask:
        return read_drawn_mask(list(self.files[name].labels.values()), self.files[name].image, self._choose)

    def load(self, image_id: str) -> tuple[Tensor, Tensor]:
        """A picture, and what its masks mark."""
        labels = self._mask(image_id).labels.to(torch.int16)
        return read_picture(self.files[image_id].image), torch.where(labels == 1, self._number, labels)


open_folder = FolderImages


def find_pictures(images: Path | str, masks: Path | str | None = None) -> Found:
    """The pictures of a folder and their masks; hidden files are left alone, and so are sub-folders but those named.

    NAME_mask.png (or .jpg ...) beside the picture NAME is its mask; so are NAME_mask_1.png, NAME_mask_2.png ..., other
    names that tools give (`OF_PICTURE`), NAME.json and NAME.npy, and of two pictures NAME the one that is plainly a
    mask of the other. With a folder of `masks` so are NAME.png and NAME_mask.png there, all of its sub-folder NAME, and
    all that is there where there is one picture. A COCO JSON is the mask of all that it lists. Capitals do not matter.
    A folder without pictures may hold the folders `images` and `masks`, or sub-folders with such two each (DSB 2018).

    Raises DataError for a folder that is not there or holds no picture, and for two files of one name.
    """
    images = Path(images)
    for folder in (images, *([] if masks is None else [Path(masks)])):
        if not folder.is_dir():
            found = "is a file; give the folder it lies in" if folder.exists() else "does not exist"
            raise DataError(f"{folder} {found}.")
    files, left_alone = files_in(images)
    if masks is None and not any(path.suffix.lower() in SUFFIXES for path in files):
        inside = [folder for folder in (images, *sorted(images.iterdir())) if (folder / "images").is_dir()]
        if inside:
            both = [(folder / "images", folder / "masks") for folder in inside]
            return _merged([find_pictures(one, other if other.is_dir() else None) for one, other in both])
    stems, drawn = {key(path.stem) for path in files}, []
    pictures: dict[str, Path] = {}
    for path in files:
        if (name := _mask_of(path, stems)) is None:
            name = key(path.stem)
            if name not in pictures:
                pictures[name] = path
                continue
            pictures[name], path = _told_apart(pictures[name], path)
        drawn.append((name, path))
    if not pictures:
        others = f" It has other files, such as {left_alone[0].name}." if left_alone else ""
        raise DataError(
            f"{images} holds no pictures ({', '.join(SUFFIXES)}).{others} Save pictures as JPEG or PNG, and put them "
            "into the folder itself: sub-folders are not searched."
        )
    if masks is not None and Path(masks).resolve() != images.resolve():
        more, left = files_in(Path(masks))
        here = [(_mask_of(path, pictures) or key(path.stem), path) for path in more]
        folders = [folder for folder in Path(masks).iterdir() if folder.is_dir() and key(folder.name) in pictures]
        here += [(key(folder.name), file) for folder in folders for file in mask_files(folder)]
        if len(pictures) == 1 and not any(name in pictures for name, _ in here):
            here = [(name, path) for name in pictures for _, path in here]
        drawn, left_alone = drawn + here, left_alone + left
    by_file = {key(path.name): name for name, path in pictures.items()}
    by_name: dict[str, dict[tuple[Path, str], Path]] = {}
    lonely, no_outlines = [], []
    for name, path in drawn:
        listed = listed_in(path) if path.suffix.lower() == ".json" else None
        found = {by_file[key(file)] for file in listed or () if key(file) in by_file}
        named = {name} & {*pictures} if listed is None or (listed and name in pictures) else found
        if not named:
            (no_outlines if listed == [] else lonely).append(path)
        for one in named:
            other = by_name.setdefault(one, {}).setdefault((path.parent, path.stem.lower()), path)
            if other != path:
                raise DataError(f"{other} and {path.name} are two masks of one name. Rename or remove one of them.")
    said = {
        "JSON without outlines by LabelMe or COCO, left alone": no_outlines,
        "Masks without a picture of their name, left alone": lonely,
        f"Not read, for their names are none of pictures ({', '.join(SUFFIXES)})": left_alone,
    }
    return Found(
        {path.stem: path for path in pictures.values()},
        {pictures[name].stem: tuple(sorted(paths.values())) for name, paths in by_name.items()},
        tuple(f"{what}: {some([path.name for path in paths])}." for what, paths in said.items() if paths),
    )


def describe_masks(masks: Sequence[DrawnMask]) -> list[str]:
    """A sentence for each rule by which masks were understood; then what there is to remark on each of them."""
    by_rule: dict[str, list[str]] = {}
    for mask in masks:
        by_rule.setdefault(mask.rule, []).append(f"{mask.name} ({mask.share:.1%} of the picture)")
    rules = [f"The object is {rule} in {some(names)}." for rule, names in by_rule.items()]
    return rules + [remark for mask in masks for remark in mask.remarks]


def own_class_id(name: str) -> int:
    """The global id of a class by its name; one that no data set has gets its own, the same everywhere."""
    if name in CLASS_IDS or name in ALIASES:
        return class_id(name)
    return OWN_CLASSES + zlib.crc32(name.encode()) % (2 * OWN_CLASSES)


def _mask_of(path: Path, names: Collection[str]) -> str | None:
    """The name of the picture that a file is a mask of, by its own name; None where it may be a picture itself."""
    name, is_picture = key(path.stem), path.suffix.lower() in SUFFIXES
    # Cellpose's NAME_seg.npy is no mask alone.
    tools = OF_PICTURE.fullmatch(name) if is_picture or MASK_ENDING in name else None
    if tools and (picture := tools[1] or tools[2]) in names:
        return picture
    return None if is_picture and not name.endswith(MASK_ENDING) else name.removesuffix(MASK_ENDING)


def _told_apart(*files: Path) -> tuple[Path, Path]:
    """Which of two files of one name is the picture and which its mask: the only one that can be, or has black."""
    read = {}
    for path, other in sorted(zip(files, files[::-1]), key=lambda pair: pair[0].suffix.lower() in JPEG):
        if path.suffix.lower() in JPEG and any("black" in mask.rule and mask.share < 0.5 for mask in read.values()):
            continue  # the usual pair, and no page: a photograph need not be looked at
        try:
            read[path] = read_drawn_mask(path, other)
        except DataError:
            continue
    black = [path for path, mask in read.items() if mask.rule != "the brighter tone"]
    if len(masks := black or list(read)) != 1:
        first, second = sorted(path.name for path in files)
        raise DataError(
            f"{first} and {second} are two pictures of one name, and neither is plainly a mask of the other. Rename or "
            f"remove one of them; a mask is named {files[0].stem}{MASK_ENDING}.png."
        )
    return next(path for path in files if path != masks[0]), masks[0]


def _merged(parts: Sequence[Found]) -> Found:
    """One of several folders."""
    seen: dict[str, Path] = {}
    for path in (path for part in parts for path in part.pictures.values()):
        if (other := seen.setdefault(path.stem.lower(), path)) != path:
            raise DataError(f"{other} and {path} are two pictures of one name. Rename or remove one of them.")
    pictures, masks = ({k: v for part in parts for k, v in vars(part)[what].items()} for what in ("pictures", "masks"))
    return Found(pictures, masks, tuple(dict.fromkeys(remark for part in parts for remark in part.remarks)))

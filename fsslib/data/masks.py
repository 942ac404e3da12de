"""Data sets made of an image and a black and white mask each: what their readers share."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, UInt8
from PIL import Image
from torch import Tensor

from fsslib.data.decode import DataError, hold_sizes, in_8_bits, read_image, read_size, read_with, refuse
from fsslib.data.images import MINIMUM_SHARE, ImageClasses, LabelledImageSet, classes_in, scan_all
from fsslib.episodes import VOID

COLOURED, MOST_COLOURED = 32, 0.25
"""A pixel is coloured when its channels differ by so much, a mask is a picture when such a share of its pixels is."""

MOST_GREY, MOST_DROPPED = 0.2, 0.01
"""A mask is a picture when such a share of its pixels is neither nearly black or white nor of one tone with those about
it, and has another class when such a share is an even tone below 128."""

Files = Mapping[str, tuple[Path, Path, int]]
"""Image, mask and global class id by the image's id."""


class MaskedImages(LabelledImageSet):
    """An episode source over images with a mask of one class each, white on black.

    Label maps hold the class's id, or 1 where that is above a byte (`LabelledImageSet`'s `class_of`). An image whose
    mask is empty is listed and never drawn. Opening reads every mask and the header of every image; a damaged image is
    found when it is first used, or by `check()`.

    Raises DataError for a mask that `read_mask` refuses, and for one of another size than its image.
    """

    def __init__(
        self,
        files: Files,
        class_names: Mapping[int, str],
        *,
        name: str,
        domain: str,
        size: int,
        minimum_share: float = MINIMUM_SHARE,
        keep_originals: bool = False,
        group_of: Callable[[str], str] | None = None,
    ):
        self._files = dict(files)
        super().__init__(
            scan_all(
                f"{name}-{size}-{minimum_share}",
                {image_id: self._both_files(image_id) for image_id in files},
                lambda image_id: self._scan(image_id, size, minimum_share),
            ),
            self._load_files,
            class_names,
            name=name,
            domain=domain,
            size=size,
            keep_originals=keep_originals,
            group_of=group_of,
            class_of={image_id: c for image_id, (_, _, c) in files.items() if c >= VOID},
            files_of=self._both_files,
        )

    def _both_files(self, image_id: str) -> tuple[Path, Path]:
        return self._files[image_id][:2]

    def _labels(self, image_id: str) -> UInt8[Tensor, "H W"]:
        _, mask, c = self._files[image_id]
        return read_mask(mask).to(torch.uint8) * (c if c < VOID else 1)

    def _load_files(self, image_id: str) -> tuple[Tensor, Tensor]:
        return read_image(self._files[image_id][0]), self._labels(image_id)

    def _scan(self, image_id: str, size: int, minimum_share: float) -> ImageClasses:
        image, mask, c = self._files[image_id]
        labels = self._labels(image_id)
        hold_sizes(mask, read_size(image), labels.shape)
        found = classes_in(labels, size, minimum_share=minimum_share)
        return ImageClasses(*(frozenset((c,) if classes else ()) for classes in (found.held, found.large)))


def read_mask(path: Path) -> Bool[Tensor, "H W"]:
    """A mask as a picture, stored in any mode: pixels of brightness 128 and more are its class, as in released loaders.

    Colours are turned grey, 16 bits are scaled (`in_8_bits`), and alpha is left out: the elephants of FSS-1000 are
    RGBA, opaque throughout.

    Raises DataError for an unreadable file, for a photograph or a palette in colours in a mask's place, for a mask of 0
    and 1, or of dark colours, which would come out empty, for a second tone below 128 that would be dropped beside the
    first (greys, class numbers, red beside white), and where alpha says otherwise than brightness.
    """

    def marked_in(image: Image.Image) -> Bool[np.ndarray, "H W"]:
        lit = np.asarray(image) > 0 if image.mode.startswith("I") else False  # of 16 bits 8 are kept
        image = in_8_bits(image, path)
        if image.mode not in ("1", "L", "LA"):
            channels = np.asarray(image.convert("RGB"))
            coloured = (channels.max(-1) - channels.min(-1) >= COLOURED).mean()
            if coloured > (0 if image.mode == "P" else MOST_COLOURED):
                raise DataError(
                    f"{path} is a picture in colours, and no black and white mask: a photograph, or a map of classes "
                    "with a palette. Restore the mask from the archive, or remove it together with its image."
                )
        brightness = np.asarray(image.convert("L"))
        marked = brightness >= 128
        if brightness.any() and not marked.any():
            raise DataError(
                f"{path} is all dark: its brightest pixel has {brightness.max()}, where a mask's class has 128 to 255. "
                "If it holds class numbers, or a palette, restore the file as published."
            )
        refuse_tones(np.maximum(brightness, lit), path)
        if image.has_transparency_data:
            hidden = np.asarray(image.convert("RGBA"))[..., 3] < 128
            if (hidden & marked).any() or (hidden.any() and not marked.any()):
                raise DataError(
                    f"{path} is transparent where it is white, or marks its class by what is opaque. Published masks "
                    "are white on black: restore the file as published."
                )
        return marked

    return torch.from_numpy(read_with(path, marked_in))


def refuse_tones(brightness: UInt8[np.ndarray, "H W"], path: Path) -> None:
    """Raise DataError for a mask with much in between black and white: a photograph, or a tone that would be dropped.

    Soft and lossy borders pass, and one even tone from 128.
    """
    levels = torch.from_numpy(brightness)[None].float()
    if ((levels > 0) & (levels < 224)).float().mean() <= MOST_DROPPED:
        return
    most, least = F.max_pool2d(levels, 3, 1, 1), -F.max_pool2d(-levels, 3, 1, 1)
    # A tone may be noisy, but not where a lossy format leaves noise in black.
    dropped = (least > 0) & (most < 128) & (most - least <= torch.where(least < 16, 0, 8))
    if ((levels >= 32) & (levels < 224) & (most > least)).float().mean() > MOST_GREY:
        raise DataError(
            f"{path} is a picture in greys, and no black and white mask: a photograph, or a mask with a wide blur. "
            "Restore the mask from the archive, or remove it together with its image."
        )
    if dropped.float().mean() > MOST_DROPPED:
        raise DataError(
            f"{path} has a tone of {levels[dropped].median():.0f} besides black and white, which would be background: "
            "a mask's class has 128 to 255. If it holds class numbers, or another class, restore the file as published."
        )


def files_in(folder: Path, suffix: str, how_to_get: str) -> dict[str, Path]:
    """The files of a folder that end in `suffix`, in capitals or not, by name without it; hidden ones are left alone.

    Raises DataError with `how_to_get` when there is no such folder, and for two files of one name but for capitals.
    """
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}.\n{how_to_get}")
    files = sorted(path for path in folder.iterdir() if path.name[0] != ".")
    found: dict[str, Path] = {}
    for path in files:
        if path.suffix.lower() == suffix and (other := found.setdefault(path.stem, path)) != path:
            refuse({str(path): f"{other} and {path} have one name."}, "Remove the one that is not of the archive.")
    return found


def paired(
    images: Mapping[str, Path],
    masks: Mapping[str, Path],
    folder: Path,
    *,
    all_masked: bool = True,
    what: str = "mask",
) -> dict[str, tuple[Path, Path]]:
    """Image and mask (or `what` it is called) by their common name; `folder` is where they were looked for.

    Raises DataError for a mask without its image, for an image without its mask unless not `all_masked`, and when there
    is not one pair.
    """
    for found, other, lacking in ((masks, images, "image"), *([(images, masks, what)] if all_masked else [])):
        alone = {
            str(path): f"{path} has no {lacking} of its name below {folder}."
            for name, path in found.items()
            if name not in other
        }
        refuse(alone, "Unpack the archive again, or remove what is alone.")
    if not masks:
        refuse({str(folder): f"{folder} holds no images with masks."}, "Unpack the archive again.")
    return {name: (images[name], mask) for name, mask in masks.items() if name in images}

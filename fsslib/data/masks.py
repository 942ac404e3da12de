"""Masks of one class, white on black, as data sets publish them."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, UInt8
from PIL import Image
from torch import Tensor

from fsslib.data.decode import DataError, in_8_bits, read_with

COLOURED, MOST_COLOURED = 32, 0.25
"""A pixel is coloured when its channels differ by so much, a mask is a picture when such a share of its pixels is."""

MOST_GREY, MOST_DROPPED = 0.2, 0.01
"""A mask is a picture when such a share of its pixels is neither nearly black or white nor of one tone with those about
it, and has another class when such a share is an even tone below 128."""


def read_mask(path: Path) -> Bool[Tensor, "H W"]:
    """A mask as a picture, stored in any mode: pixels of brightness 128 and more are its class, as in released loaders.

    Colours are turned grey, 16 bits are scaled (`in_8_bits`), and alpha is left out: the elephants of FSS-1000 are
    RGBA, opaque throughout.

    Raises DataError for an unreadable file, for a photograph or a palette in colours in a mask's place, for a mask of 0
    and 1, or of dark colours, which would come out empty, for a second tone below 128 that would be dropped beside the
    first (greys, class numbers, red beside white), and where alpha says otherwise than brightness.
    """

    def marked_in(image: Image.Image) -> Bool[np.ndarray, "H W"]:
        lossy = image.format in ("JPEG", "MPO")
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
        refuse_tones(np.maximum(brightness, lit), path, lossy=lossy)
        if image.has_transparency_data:
            hidden = np.asarray(image.convert("RGBA"))[..., 3] < 128
            if (hidden & marked).any() or (hidden.any() and not marked.any()):
                raise DataError(
                    f"{path} is transparent where it is white, or marks its class by what is opaque. Published masks "
                    "are white on black: restore the file as published."
                )
        return marked

    return torch.from_numpy(read_with(path, marked_in))


def refuse_tones(brightness: UInt8[np.ndarray, "H W"], path: Path, *, lossy: bool = False) -> None:
    """Raise DataError for a mask with much in between black and white: a photograph, or a tone that would be dropped.

    Soft and lossy borders pass, and one even tone from 128.
    """
    levels = torch.from_numpy(brightness)[None].float()
    if ((levels > 0) & (levels < 224)).float().mean() <= MOST_DROPPED:
        return
    most, least = F.max_pool2d(levels, 3, 1, 1), -F.max_pool2d(-levels, 3, 1, 1)
    # A tone may be noisy, but not where a lossy format leaves noise in black, or makes it a little lighter.
    dropped = (least > (15 if lossy else 0)) & (most < 128) & (most - least <= torch.where(least < 16, 0, 8))
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

"""Image files turned into pixels and labels, and brought to one size: what every reader of real data decodes with."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from fsslib.episodes import VOID
from fsslib.files import DataError


def _transforms() -> ModuleType:
    """torchvision's functions on images, imported at first use: that takes seconds, which the toy world saves."""
    from torchvision.transforms.v2 import functional

    return functional


def read_image(path: Path) -> UInt8[Tensor, "3 H W"]:
    """An image file as RGB, as stored: EXIF's Orientation is left alone, for label maps are drawn on stored pixels.

    Raises DataError naming the file when it is missing, cut short or not an image, and as `as_rgb`.
    """
    return read_with(path, lambda image: as_rgb(image, path))


def as_rgb(image: Image.Image, path: Path | str) -> UInt8[Tensor, "3 H W"]:
    """An opened image file in RGB, on white where it is transparent: the one reading of pictures, for all sets.

    Grey of 16 bits is scaled by the number of bits that the picture uses, at least 8; Pillow's own conversion would
    clip it at 255. Raises DataError for pixels that are fractions; `path` is for the message.
    """
    if image.mode == "F":
        raise DataError(f"{path} holds fractions and no colours. Save it as a PNG of 8 or 16 bits.")
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64).clip(0)
        most = 2 ** max(8, int(values.max()).bit_length()) - 1
        image = Image.fromarray((values * 255 // most).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()


def voc_palette() -> UInt8[np.ndarray, "256 3"]:
    """VOC's colours by label, as its devkit makes them: the bits of the label dealt out to R, G and B, high bits first.

    Void (255) is (224, 224, 192), background black.
    """
    labels = np.arange(256)
    colours = np.zeros((256, 3), dtype=np.int64)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (labels >> (3 * bit + channel) & 1) << (7 - bit)
    return colours.astype(np.uint8)


def read_label_map(path: Path) -> UInt8[Tensor, "H W"]:
    """A label map stored as 8-bit indices, with a palette (mode P) or as grey levels (mode L): the numbers as they are.

    Converting a palette image to grey would give the brightness of its colours instead. Raises DataError naming the
    file when it is missing, damaged, or a picture in colours.
    """

    def indices(image: Image.Image) -> Tensor:
        if image.mode not in ("P", "L"):
            raise DataError(
                f"{path} is stored in mode {image.mode}, as a picture. A label map holds one class number a pixel (PNG "
                "with a palette, or 8-bit grey): restore the file as published; colours cannot be turned back safely."
            )
        return _transforms().pil_to_tensor(image)[0]

    return read_with(path, indices)


def read_size(path: Path) -> tuple[int, int]:
    """Height and width of an image file from its header, without decoding it. Errors as `read_image`."""
    return read_with(path, lambda image: (image.height, image.width), whole=False)


def read_with(path: Path, use: Callable[[Image.Image], Any], *, whole: bool = True) -> Any:
    """What `use` makes of an opened image file, its errors in words. `whole`: hold a PNG against its checksums first.

    Pillow decodes a PNG with a wrong byte without a word where it can, to other labels.
    """
    try:
        with Image.open(path) as image:
            if image.format != "PNG" or not whole:
                return use(image)
            image.verify()
        with Image.open(path) as image:
            return use(image)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist. Unpack the archive it belongs to again.") from error
    except DataError:
        raise
    # Pillow reports damage as OSError, and as SyntaxError or ValueError from its PNG reader.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{path} cannot be read ({error}). Most often such a file was cut short in copying or unpacking: delete it "
            "and restore it from the archive."
        ) from error


def resize_image(image: UInt8[Tensor, "3 H W"], size: int) -> UInt8[Tensor, "3 S S"]:
    """The image at `size` x `size` pixels, bilinear with antialiasing."""
    transforms = _transforms()
    return transforms.resize(image, [size, size], transforms.InterpolationMode.BILINEAR, antialias=True)


def resize_labels(labels: UInt8[Tensor, "H W"], size: int) -> UInt8[Tensor, "S S"]:
    """The label map at `size` x `size` pixels: each takes the label at its centre, so no label is mixed or invented.

    Not a `tv_tensors.Mask`: older torchvision resizes those with "nearest" whatever it is told, which takes a corner of
    each cell and so moves the mask against its image by up to half a pixel.
    """
    transforms = _transforms()
    return transforms.resize(labels[None], [size, size], transforms.InterpolationMode.NEAREST_EXACT)[0]


def fitted(
    image: UInt8[Tensor, "3 H W"], labels: UInt8[Tensor, "H W"], size: int, fit: str = "square"
) -> tuple[UInt8[Tensor, "3 S S"], UInt8[Tensor, "S S"]]:
    """An image and its label map in `size` x `size` pixels, by the rule of a protocol (`fsslib.metrics.Protocol.fit`).

    "square" is `resize_image` and `resize_labels`. "corner" takes the upper left label of each cell, as HSNet. "padded"
    is PFENet's: the longer side becomes `size` and the other as much, both cut to multiples of 8 and at least that; no
    antialiasing; to the right and below black, and void. PFENet keeps fractions of the 8 bits that images have here.
    """
    if fit == "square":
        return resize_image(image, size), resize_labels(labels, size)
    if fit == "corner":
        corner = F.interpolate(labels[None, None].float(), (size, size), mode="nearest")[0, 0]
        return resize_image(image, size), corner.to(labels.dtype)
    longest = max(labels.shape)
    sides = [max(8, (size if side == longest else int(side * (size / longest))) // 8 * 8) for side in labels.shape]
    # The label at the upper left, in OpenCV's arithmetic: for some sizes others round otherwise.
    rows, columns = (
        (torch.arange(new, dtype=torch.float64) * (1 / (new / old))).long().clamp(max=old - 1)
        for new, old in zip(sides, labels.shape)
    )
    within = (slice(sides[0]), slice(sides[1]))
    picture, truth = image.new_zeros(3, size, size), labels.new_full((size, size), VOID)
    picture[:, *within] = F.interpolate(image[None].float(), sides, mode="bilinear", align_corners=False)[0].round()
    truth[within] = labels[rows][:, columns]
    return picture, truth


def size_mismatch(what: Path | str, image_size: tuple[int, ...], labels_size: tuple[int, ...]) -> str:
    """The message for a label map of another size (height, width) than its image."""
    return (
        f"{what}: the image is {image_size[1]} x {image_size[0]} pixels, its label map {labels_size[1]} x "
        f"{labels_size[0]}. They are of different releases, or one was resized: restore both from one source."
    )

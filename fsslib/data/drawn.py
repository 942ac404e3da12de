"""One's own pictures and masks as their owner sees them: what is object and what is void, in a file of any kind."""

import functools
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Shaped, UInt8
from PIL import Image, ImageChops, ImageColor, ImageOps, UnidentifiedImageError
from torch import Tensor

from fsslib.data.decode import DAMAGE, DataError, as_rgb, hold_one, in_8_bits, voc_palette
from fsslib.data.flatness import SPOT, STILL, is_drawn, is_label_map, middle_of_two_tones, plain, still
from fsslib.data.names import CLASS_NAMES
from fsslib.data.outlines import read_outlines
from fsslib.episodes import VOID

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
"""Files that are pictures, in capitals or not."""

MASK_SUFFIXES = (*SUFFIXES, ".npy", ".json")
JPEG = (".jpg", ".jpeg")
CLUTTER = ("thumbs.db", "desktop.ini")

ORIENTATION = 0x0112
"""EXIF's tag of how the stored picture is turned, 1 (upright) to 8; from 5 on it lies."""

FAILED = {
    UnidentifiedImageError: "is not a picture, or of a kind that cannot be read here. If a viewer shows it, save it "
    "from there as JPEG or PNG.",
    Image.DecompressionBombError: "is too large to be read ({}). Save it smaller.",
    Exception: "cannot be read ({}). It is damaged or cut short: copy it again, or leave it out.",
}

LAST_CLASS = 20
"""VOC's last number: 255 beside none but numbers up to it is void."""

Choice = str | int | None
"""Which class of a mask is the object: by its name, its number, or its colour as "#rrggbb"; None: all of them."""


@dataclass(frozen=True)
class DrawnMask:
    """A mask as it was understood: 1 is the object, 255 void, at the upright picture's size; `rule` says what is it.

    `remarks` are sentences on what the drawer may not have meant, `name` is the file's, or the first one's of several.
    """

    name: str
    labels: UInt8[Tensor, "H W"]
    rule: str
    remarks: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        """Share of the picture that is the object."""
        return (self.labels == 1).double().mean().item()


@dataclass(frozen=True)
class _Map:
    """A mask file as codes, 0 for black and void; those that are `present`, and how bright each pixel is `seen`.

    `names` says what a code is called, first the name to show. There is a `rule` for what never was a picture.
    """

    codes: Shaped[np.ndarray, "H W"]
    seen: Shaped[np.ndarray, "H W"]
    present: Shaped[np.ndarray, " codes"]
    names: Callable[[Any], tuple[str, ...]]
    void: Bool[np.ndarray, "H W"]
    rule: str = ""
    remarks: list[str] = field(default_factory=list)

    @classmethod
    def of_two(cls, marked: Bool[np.ndarray, "H W"], *names: str, rule: str = "") -> "_Map":
        """What is marked, and what is not: 1 and 0."""
        return cls(marked, marked, np.arange(2), lambda code: names * code, np.zeros_like(marked), rule)


def read_picture(path: Path | str) -> UInt8[Tensor, "3 H W"]:
    """A picture as viewers show it: turned upright by its EXIF, in RGB, on white where it is transparent.

    Raises DataError for a file that is missing, cut short, of several pages or no picture, and as `as_rgb`.
    """
    return _opened(path, lambda image: as_rgb(image, path, upright=True))


def read_drawn_mask(path: Path | str | Sequence[Path | str], picture: Path | str, choose: Choice = None) -> DrawnMask:
    """The mask of a picture, as its drawer meant it; several files, or a folder of them, are joined.

    - A picture with transparent and opaque parts marks what is opaque, black or not.
    - A label map marks what is not black, or the class that is chosen: constant regions of numbers or colours, in a
      picture or a NumPy array [H, W], and the outlines of LabelMe and COCO. VOC's rim is void, so are 255 beside VOC's
      numbers, -1, NaN and crowds.
    - Any other, such as a JPEG or a soft brush, marks what is half as bright as its brightest pixel, or brighter.

    The mask has the picture's size, upright or as stored: cameras store a picture lying and note in its EXIF how to
    turn it, viewers show it upright, and some tools do not. The size tells which of the two was drawn on. Where both
    have one size the upright one is taken, and a remark says so. A size that is one pixel off is refused: nothing tells
    at which edge.

    Raises DataError for a file that is damaged, of another size, the picture itself, or a photograph.
    """
    picture, files = Path(picture), mask_files(path)
    stored, orientation = _opened(picture, _size_and_orientation)
    upright = stored[::-1] if orientation >= 5 else stored
    pixels = functools.cache(lambda: _opened(picture, lambda image: _rgba(ImageOps.exif_transpose(image))))
    marked, void = np.zeros((2, *upright), dtype=bool)
    rules, remarks = {}, []
    for file in files:
        found = _read(file, picture, upright, pixels, choose)
        size = found.codes.shape
        if size not in (upright, stored):
            raise DataError(
                f"{file} is {size[1]} x {size[0]} pixels, its picture {picture.name} {upright[1]} x {upright[0]}. A "
                "mask has exactly the size of its picture: draw it on the picture itself and export it unscaled."
            )
        here, rule = _object(found, file, choose)
        parts = [here, found.void]
        if size != upright:
            parts = [_turned(part, orientation) for part in parts]
            remarks.append(f"{file.name} was drawn on the picture as it is stored, lying: turned upright with it.")
        elif orientation > 1 and stored == upright:
            remarks.append(
                f"{picture.name} is stored turned, and its mask would fit either way: {file.name} is taken as drawn on "
                "the picture as viewers show it."
            )
        marked, void = marked | parts[0], void | parts[1]
        rules[rule] = None
        remarks += found.remarks
    void &= ~marked
    what, edge = files[0].name, np.concatenate([marked[0], marked[-1], marked[:, 0], marked[:, -1]])
    if len(files) > 1:
        what = f"What they mark in {picture.name}"
        remarks.insert(0, f"{len(files)} masks of {picture.name} are joined: {some([file.name for file in files])}.")
    if not marked.any():
        remarks.append(f"{what} is empty: {picture.name} is taken to show no object.")
    elif (marked | void).all():
        remarks.append(f"{what} marks the whole of {picture.name}, which leaves no background to compare with.")
    elif edge.mean() > 0.9:
        remarks.append(f"{what} marks nearly all of its border. If black is the object there, invert the mask.")
    if void.any():
        remarks.append(f"{void.mean():.1%} of {picture.name} is void, neither object nor background.")
    labels = torch.from_numpy(np.where(void, np.uint8(VOID), marked.astype(np.uint8)))
    return DrawnMask(some([file.name for file in files], 1), labels, " or ".join(rules), tuple(remarks))


def mask_files(path: Path | str | Sequence[Path | str]) -> list[Path]:
    """The files of a mask: one, those of a folder, or those of a list. Raises DataError for a folder without any."""
    if not isinstance(path, str | Path):
        return [file for one in path for file in mask_files(one)]
    if not Path(path).is_dir():
        return [Path(path)]
    if not (files := files_in(Path(path))[0]):
        raise DataError(f"{path} is a folder without masks ({', '.join(MASK_SUFFIXES)}).")
    return files


def files_in(folder: Path) -> tuple[list[Path], list[Path]]:
    """The pictures and masks of a folder, and what else lies there; hidden files and the system's own are neither."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file()]
    files = [path for path in files if path.name[0] != "." and path.name.lower() not in CLUTTER]
    wanted = [path for path in files if path.suffix.lower() in MASK_SUFFIXES]
    return wanted, [path for path in files if path not in wanted]


def some(names: Sequence[str], count: int = 5) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more


def _read(
    file: Path, picture: Path, upright: tuple[int, int], pixels: Callable[[], Image.Image], choose: Choice
) -> _Map:
    """What a file holds. Raises DataError where that is the picture, whose `pixels` are read if they have to be."""
    suffix = file.suffix.lower() if file.is_file() else ""
    if suffix == ".json":
        codes, names, remarks = read_outlines(file, picture, upright)
        drawn, rule = codes.clip(0), "what is outlined"
        return _Map(drawn, drawn, np.unique(drawn), lambda code: (names[code],), codes < 0, rule, remarks)
    if suffix == ".npy":
        try:
            with file.open("rb") as stream:
                values = np.lib.format.read_array(stream, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{file} cannot be read ({error}). Save the mask alone, by np.save.") from error
        flat = values.squeeze(0 if len(values) == 1 else -1) if values.ndim == 3 and 1 in values.shape[::2] else values
        if flat.ndim != 2 or flat.dtype.kind not in "biuf":
            raise DataError(f"{file} holds {values.dtype} {[*values.shape]}; a mask is one number a pixel, [H, W].")
        return _numbers(flat, file, [])

    def understand(opened: Image.Image) -> _Map:
        tile = str(getattr(opened, "tile", ""))
        deep = (";16" in tile and opened.mode in ("RGB", "RGBA", "LA")) or getattr(opened, "tag_v2", {}).get(262) == 0
        step = 17 if "'L;4'" in tile else 85 if "'L;2'" in tile else 1  # Pillow stretches few levels of grey to 255
        image = in_8_bits(opened, file, upright=True) if deep else ImageOps.exif_transpose(opened)
        image = image if step == 1 else image.point(lambda level: level // step)
        # Some tools copy the picture's EXIF to a mask that was drawn upright.
        image = opened if opened.size == upright[::-1] != image.size else image
        found = _picture(image, file, choose)
        if opened.format == "JPEG" and 0 < found.seen.max() <= LAST_CLASS:
            raise DataError(f"{file} is next to black: numbers do not outlive a JPEG. Save the mask as PNG.")
        # A JPEG that is not blank never has two colours alone, so that it need not be read to tell it from the mask.
        alike = image.size == upright[::-1] and (len(found.present) > 2 or picture.suffix.lower() not in JPEG)
        if file.samefile(picture) or (
            alike and not ImageChops.difference(_rgba(image), pixels()).getbbox(alpha_only=False)
        ):
            raise DataError(
                f"{file} holds the same pixels as {picture}: it is the picture, and no mask of it. Name the picture "
                "first, then the file in which its object is marked."
            )
        return found

    return _opened(file, understand)


def _picture(image: Image.Image, file: Path, choose: Choice) -> _Map:
    """A picture's colours, or its numbers where it is grey."""
    remarks = []
    if image.has_transparency_data:
        pixels = np.asarray(image.convert("RGBA"))
        alpha, image = pixels[..., 3], image.convert("RGB")
        # A layer of 40 % has no more at its most opaque.
        opaque = alpha.astype(np.int16) * 2 >= max(1, alpha.max())
        if ((alpha >= SPOT) & ~opaque & plain(alpha)).any():
            raise DataError(f"{file} has objects of several opacities. Save it with all layers at 100 %.")
        if opaque.any() and not opaque.all():
            black, white = ((pixels[opaque][:, :3] == value).all(1).mean() for value in (0, 255))
            if _called(choose) & {"#000000", "0"}:
                return _Map.of_two(opaque & ~pixels[..., :3].any(-1), "#000000", "0")
            much = 0.3 if opaque.mean() < 0.9 else 0.1
            if (black > 0.01 and black + white > 0.95 and white > 0) or much < black < 0.99:
                remarks.append(f"{file.name} has black inside a transparent margin: both count as background.")
            elif choose is None:
                return _Map.of_two(opaque, rule="what is not transparent")
            image = Image.fromarray(pixels[..., :3] * opaque[..., None])
    if image.mode in ("1", "L", "F") or image.mode.startswith("I"):
        return _numbers(np.asarray(image.convert("L") if image.mode == "1" else image), file, remarks)
    pixels = np.asarray(image.convert("RGB"))
    if all((pixels[..., 0] == pixels[..., channel]).all() for channel in (1, 2)):
        return _numbers(pixels[..., 0], file, remarks)
    return _colours(pixels, image.getpalette() if image.mode == "P" else [], remarks)


def _numbers(values: Shaped[np.ndarray, "H W"], file: Path, remarks: list[str]) -> _Map:
    """Numbers of any kind, with NaN, -1, and 255 beside VOC's numbers as void."""
    plain = {"b": np.uint8, "f": np.float64}.get(values.dtype.kind, values.dtype.newbyteorder("="))
    values = values.astype(plain, copy=False)
    void = ~np.isfinite(values)
    present = np.unique(values[~void])
    if (below := present[present < 0]).size > 1 or (below < -1).any():
        raise DataError(
            f"{file} holds {below.size} negative numbers from {below[0]:g} on, as the scores of a network do, or is a "
            "TIFF with numbers above 2147483647. Save 0 and 1, or shares from 0 to 1; -1 alone is void."
        )
    void |= values < 0
    values = np.where(void, 0, values)
    if void.any() and 0 not in present:
        remarks.append(f"{file.name} has no 0: what is below or no number is taken for background.")
        void = np.zeros_like(void)
    rim = values == VOID
    drawn = (values > 0) & ~rim
    as_in_voc = 0 in present and rim.any() and drawn.any() and values[drawn].max() <= LAST_CLASS
    if as_in_voc and is_drawn(drawn, rim, values):
        values, void = np.where(rim, 0, values), void | rim
    return _Map(values, values, np.unique(values), lambda code: (f"{code:.6g}",), void, remarks=remarks)


def _colours(pixels: UInt8[np.ndarray, "H W 3"], palette: list[int], remarks: list[str]) -> _Map:
    """Colours by their names; VOC's rim is void where all colours are VOC's."""
    codes, voc = _packed(pixels), _packed(voc_palette())
    bright = functools.reduce(np.maximum, (pixels[..., channel] for channel in range(3)))  # .max(-1) is slow
    present = np.unique(codes)
    is_voc = np.isin(present, voc).all()
    numbered = (voc if is_voc else _packed(np.array(palette).reshape(-1, 3))).tolist()
    number = {code: str(index) for index, code in reversed(list(enumerate(numbered)))}
    void = is_voc & (codes == voc[VOID])
    if is_voc:
        codes, present = np.where(void, 0, codes), np.setdiff1d(present, voc[VOID])
    name = {voc[label]: CLASS_NAMES[label] for label in range(1, LAST_CLASS + 1) if is_voc}

    def names(code: int) -> tuple[str, ...]:
        return f"#{code:06x}", number.get(code, ""), name.get(code, "")

    return _Map(codes, bright, present, names, void, remarks=remarks)


def _packed(colours: Shaped[np.ndarray, "*shape 3"]) -> Shaped[np.ndarray, "*shape"]:
    red, green, blue = (colours[..., channel].astype(np.int32) for channel in range(3))
    return red << 16 | green << 8 | blue


def _called(choose: Choice) -> set[str]:
    """What is chosen, as a mask may call it: a colour has names and short forms, a grey is a number too."""
    text = str(choose).strip().lower()
    try:
        red, green, blue = ImageColor.getrgb(f"#{text}" if re.fullmatch("[0-9a-f]{6}", text) else text)[:3]
    except ValueError:
        return {text}
    return {text, f"#{red:02x}{green:02x}{blue:02x}"} | ({f"grey {red}"} if red == green == blue else set())


def _object(found: _Map, file: Path, choose: Choice) -> tuple[Bool[np.ndarray, "H W"], str]:
    """Which pixels are the object, and by which rule."""
    codes, seen, present, rule = found.codes, found.seen, found.present, found.rule or "what is not black"
    others = present[present != 0]
    if not others.size:
        return codes != 0, rule
    if not found.rule and not is_label_map(codes, seen, len(present)):
        middle, spots = middle_of_two_tones(seen, len(present), file)
        if spots:
            found.remarks.append(
                f"{file.name} has {spots} spot(s) less than half as bright as the rest, which are left out. Paint all "
                "objects in one tone."
            )
        if choose is not None:
            raise DataError(
                f"{file} has no classes to choose from: its colours run into one another, as in a JPEG or with smooth "
                "borders. Paint with a pencil, and save as PNG."
            )
        return seen >= middle, "what is at least half as bright as the brightest pixel"
    if not found.rule and present.size == 2 and still(codes).mean() < STILL:
        found.remarks.append(f"{file.name} is made of dots or fine lines: if it is the picture, swap the two.")
    shown = some([" ".join(filter(None, found.names(code)[:2])) for code in others.tolist()])
    if choose is not None:
        # Black too can be the object, as in an inverted mask.
        offered, grey = others if found.rule else present, codes.dtype == np.uint8
        called = {n: {*map(str.lower, found.names(n)), f"grey {n}" * grey} for n in offered.tolist()}
        wanted = [n for n in called if called[n] & _called(choose)]
        if not wanted:
            found.remarks.append(f"{file.name} has no {choose!r}; it has {shown}.")
        return np.isin(codes, wanted) & ~found.void, f"what is {choose}"
    if others.size == 1:
        return codes != 0, rule
    if others.size == present.size and not found.rule:
        if others.size > 2 or (seen == seen[0, 0]).all():
            raise DataError(
                f"{file} has no black, so that its background is not known; it has {shown}. Choose the object's colour "
                "(--class or --colour), or paint the background black."
            )
        found.remarks.append(f"{file.name} has two tones and no black: the brighter one is taken for the object.")
        return seen == seen.max(), "the brighter tone"
    found.remarks.append(
        f"{file.name} holds {others.size} objects or classes, which count as one: {shown}. To take one alone choose "
        "it (--class or --colour)."
    )
    return codes != 0, found.rule or f"{rule}, all colours as one,"


def _size_and_orientation(image: Image.Image) -> tuple[tuple[int, int], int]:
    """Height and width as stored, and EXIF's Orientation, 1 where there is none. Pillow turns TIFF as it loads it."""
    if image.format == "TIFF":
        image.load()
    orientation = image.getexif().get(ORIENTATION, 1)
    return (image.height, image.width), orientation if orientation in range(2, 9) else 1


def _turned(part: Bool[np.ndarray, "h w"], orientation: int) -> Bool[np.ndarray, "H W"]:
    """What was drawn on the picture as it is stored, brought upright with it."""
    image = Image.fromarray(part)
    image.getexif()[ORIENTATION] = orientation
    return np.asarray(ImageOps.exif_transpose(image))


def _rgba(image: Image.Image) -> Image.Image:
    return image.convert("RGBA" if image.has_transparency_data else "RGB").convert("RGBA")


def _opened(path: Path | str, use: Callable[[Image.Image], Any]) -> Any:
    """What `use` makes of the picture in a file; whatever goes wrong in reading is a DataError in words."""
    path = Path(path)
    if not path.is_file():
        found = "is a folder, where a picture is wanted" if path.is_dir() else "does not exist"
        raise DataError(f"{path} {found}.")
    try:
        with Image.open(path) as image:
            hold_one(image, path)
            return use(image)
    except DataError:
        raise
    except (*DAMAGE, struct.error, Image.DecompressionBombError) as error:  # struct.error is damaged EXIF
        said = next(words for kind, words in FAILED.items() if isinstance(error, kind))
        raise DataError(f"{path} {said.format(error)}") from error

"""From a few pictures with masks to the masks of a whole folder: few-shot segmentation as a tool."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Shaped, UInt8
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from scipy.ndimage import distance_transform_edt
from torch import Tensor
from tqdm.auto import tqdm

from fsslib import paths
from fsslib.blocks.backbones import BACKBONES, WeightsRecord
from fsslib.data.check import draw_sheet
from fsslib.data.decode import DataError, resize_image, resize_labels
from fsslib.data.drawn import Choice, mask_files, read_drawn_mask, read_picture, some
from fsslib.data.folder import describe_masks, find_pictures
from fsslib.episodes import VOID
from fsslib.methods import build_method
from fsslib.methods.base import Method
from fsslib.training.evaluate import evaluating

FALLBACK = ("tiny", "tiny-toy-fold4.pt")
"""Backbone and shipped weights where there are none of ImageNet."""

MEASURED = "sg_one_voc.json"
"""The results file that says how good untrained prototypes are on photographs, at the settings used here."""

CRIMSON = (228, 19, 79)
OVERLAY_SIDE = 1280
"""Longest side of an overlay in pixels; masks have the picture's own size."""

SHEET_PICTURES = 48
CELL = 220

CELL_OF_GRID = 8
"""Pixels of the network's picture that one cell of its grid stands for, in most backbones here."""

FEW_CELLS, CLOSEST = 3, 64
"""An object that covers fewer cells is shown from close by, in a window of at least so many of the picture's pixels."""

Pair = tuple[Path | str, Path | str | Sequence[Path | str]]


@dataclass(frozen=True)
class Segmentation:
    """What `segment` wrote, by the pictures' names, and what there is to say about it.

    `overlap` is the IoU, in [0, 1], of the answers on the support pictures with their own masks: of each picture with
    only the others shown, or, where there is one, with that one shown, which flatters. `damaged` has a message for each
    picture that could not be read. `notes` are sentences, first those of `understood`, on how the masks were read.
    """

    masks: dict[str, Path]
    overlays: dict[str, Path]
    sheet: Path
    overlap: float
    damaged: dict[str, str]
    understood: tuple[str, ...]
    notes: tuple[str, ...]


def segment(
    support: Sequence[Pair],
    query: Path | str,
    out: Path | str,
    *,
    method: Method | None = None,
    backbone: str = "auto",
    weights: Path | str = "auto",
    size: int = 256,
    device: torch.device | str = "cpu",
    choose: Choice = None,
    progress: bool = False,
) -> Segmentation:
    """Find in every picture of the folder `query` what the masks of `support`, pairs of picture and mask, mark.

    Writes to the folder `out`, for each picture NAME: NAME_mask.png, 255 the object and 0 the rest, at the size of the
    upright picture; NAME_overlay.png to look at, at most 1280 pixels wide or high; and one contact_sheet.png. What an
    earlier call wrote there is replaced. Pictures and masks of the support are not segmented again. How each mask was
    understood is drawn first, in masks_understood.png, and with `progress` printed first.

    A mask may be a file of any kind, or a folder of files; a picture that is named several times has all its masks
    joined. Of a mask with several classes `choose` names the one that is meant. An object of fewer than three cells of
    the network's grid is shown from close by, for at `size` its features would be those of what lies around it.

    The network sees pictures at `size` x `size` pixels, as in evaluation. `backbone` and `weights` "auto" are the first
    ResNet of which ImageNet weights are on this machine (`imagenet_weights`), else a tiny network that only knows the
    toy world; the notes say which, and what to expect of it. Weights "imagenet" are fetched once. Prototypes need
    no training; any other `method` comes trained, splits into encode and decode, and has its own backbone.

    Pictures and masks are read as by `fsslib.data.folder`. Raises DataError, before anything is written, when the
    supports, the query folder or `out` cannot be used; a query picture that cannot be read is named in `damaged`, and
    raises only when no other is left.
    """
    masks_of: dict[Path, list[Path]] = {}
    for picture, mask in support:
        masks_of.setdefault(Path(os.path.abspath(picture)), []).extend(mask_files(mask))
    found, out = find_pictures(query), Path(out)
    shown = {path.resolve() for picture, masks in masks_of.items() for path in (picture, *masks)}
    queries = {name: path for name, path in found.pictures.items() if path.resolve() not in shown}
    if not queries:
        raise DataError(f"{query} holds only pictures of the support: there is nothing to segment.")
    supports, thumbs, understood = _supports(masks_of, size, choose)
    if progress:
        print("\n".join(understood), flush=True)
    if out.resolve() in {path.parent for path in (*shown, *(path.resolve() for path in found.pictures.values()))}:
        raise DataError(f"{out} holds pictures or masks that are read. Give another folder, so that nothing is lost.")
    method, expected = (method, []) if method is not None else _build(backbone, weights)
    sheet, masks, overlays, damaged = out / "contact_sheet.png", {}, {}, {}
    on_sheet, at_top = list(queries)[:: -(-len(queries) // SHEET_PICTURES)], thumbs[:6]
    try:
        out.mkdir(parents=True, exist_ok=True)
        _draw_sheet(thumbs, out / "masks_understood.png")
        with evaluating(method, device):
            encoded = _encoded(method, supports)
            overlap = _overlap(method, encoded, supports)
            for name, path in tqdm(queries.items(), "segmenting", unit="picture", leave=False, disable=not progress):
                try:
                    picture = read_picture(path)
                except DataError as error:
                    damaged[name] = str(error)
                    continue
                marked = _answer(method, encoded, resize_image(picture, size), picture.shape[1:])
                masks[name], overlays[name] = (out / f"{name}_{what}.png" for what in ("mask", "overlay"))
                Image.fromarray(255 * marked.numpy().astype(np.uint8)).save(masks[name])
                (overlay := _overlay(picture, marked)).save(overlays[name])
                if name in on_sheet:
                    at_top.append(_Thumb(overlay, path.name if marked.any() else f"{path.name}: nothing found"))
        if not masks:
            raise DataError("\n".join(["None of the pictures can be read.", *list(damaged.values())[:10]]))
        _draw_sheet(at_top, sheet)
    except OSError as error:
        where = error.filename or out
        raise DataError(f"{where} cannot be written ({error.strerror}). Make room, or give another folder.") from error

    notes, met = [*understood, *found.remarks, *expected], f"met with an IoU of {overlap:.0%}"
    notes.append(
        f"In the picture that was shown its own mask is {met}: expect less elsewhere."
        if len(supports) == 1
        else f"A check on the {len(supports)} pictures that were shown: answered from the others alone, each one's own "
        f"mask is {met} in the mean."
    )
    if left := [path.name for name, path in found.pictures.items() if name not in queries]:
        notes.append(f"Not segmented, for they were shown: {some(left)}.")
    if (drawn := len(on_sheet) - len(damaged.keys() & {*on_sheet})) < len(masks):
        notes.append(f"The contact sheet shows {drawn} of the {len(masks)} pictures.")
    return Segmentation(masks, overlays, sheet, overlap, damaged, understood, tuple(notes))


def imagenet_weights() -> tuple[str, Path] | None:
    """Backbone and file of the first ResNet of which ImageNet weights are on this machine, the smallest first.

    They are looked for as RESNET_imagenet*.pth in `weights` of the data root, and as torchvision's own downloads.
    """
    downloads = Path(torch.hub.get_dir()) / "checkpoints"
    for name in (name for name in BACKBONES if name.startswith("resnet")):
        files = [*(paths.data_root() / "weights").glob(f"{name}_imagenet*.pth"), *downloads.glob(f"{name}-*.pth")]
        if files:
            return name, min(files)
    return None


class _Support(NamedTuple):
    """A picture that is shown, at the network's size: `whole`, and from `close` by, where it is `marked`; its mask."""

    whole: UInt8[Tensor, "3 S S"]
    close: UInt8[Tensor, "3 S S"]
    marked: UInt8[Tensor, "S S"]
    labels: UInt8[Tensor, "H W"]


def _supports(
    masks_of: Mapping[Path, list[Path]], size: int, choose: Choice
) -> tuple[list[_Support], list["_Thumb"], tuple[str, ...]]:
    """The pictures that are shown, how they look with their masks, and how these were read.

    Raises DataError when there are none, or when one shows nothing, or too little at `size`.
    """
    if not masks_of:
        raise DataError("No support is given. Show at least one picture with a mask of the object.")
    supports, thumbs, masks = [], [], []
    for path, files in masks_of.items():
        mask, picture = read_drawn_mask(files, path, choose), read_picture(path)
        if not (mask.labels == 1).any():
            said = " ".join(remark for remark in mask.remarks if "is empty" not in remark)
            raise DataError(f"{files[0]} is empty. Mark the object in {path.name} anew. {said}".rstrip())
        close, labels = _from_close_by(picture, mask.labels, size)
        marked = resize_labels(labels, size)
        if (marked == 1).sum() < CELL_OF_GRID**2:
            raise DataError(
                f"{files[0]} leaves next to nothing of the object at {size} pixels, even from close by. Ask for a "
                f"larger size, or show a picture in which it is larger than in {path.name}."
            )
        if labels.shape != mask.labels.shape:
            small = (
                f"The object in {path.name} is small, and shown to the network from close by. Where it is as small in "
                "other pictures, ask for a larger size."
            )
            mask = replace(mask, remarks=(*mask.remarks, small))
        masks.append(mask)
        supports.append(_Support(resize_image(picture, size), resize_image(close, size), marked, mask.labels))
        thumbs.append(_Thumb(_overlay(picture, mask.labels), f"shown: {path.name}", True))
    return supports, thumbs, tuple(describe_masks(masks))


def _encoded(method: Method, supports: Sequence[_Support]) -> dict[str, Tensor]:
    """What the method keeps of the supports, with the axes [1 episode, 1 way, K shots]."""
    device, parts = next(method.parameters()).device, []
    for one in supports:
        with torch.inference_mode():
            parts.append(method.encode(one.close[None].to(device) / 255, one.marked[None].long().to(device)))
    return {key: torch.cat([part[key] for part in parts])[None, None] for key in parts[0]}


def _overlap(method: Method, encoded: Mapping[str, Tensor], supports: Sequence[_Support]) -> float:
    """Mean IoU with the masks, void left out, each picture answered from the others, or from itself if alone."""
    scores, shots = [], torch.arange(len(supports))
    for k, one in enumerate(supports):
        others = shots[shots != k] if len(shots) > 1 else shots
        part = {key: value[:, :, others] for key, value in encoded.items()}
        marked = _answer(method, part, one.whole, one.labels.shape) & (one.labels != VOID)
        truth = one.labels == 1
        scores.append((marked & truth).sum().item() / (marked | truth).sum().item())
    return sum(scores) / len(scores)


def _from_close_by(
    picture: UInt8[Tensor, "3 H W"], labels: UInt8[Tensor, "H W"], size: int
) -> tuple[UInt8[Tensor, "3 h w"], UInt8[Tensor, "h w"]]:
    """Picture and mask as they are, or where too few cells are marked a window of both around the thickest part.

    There a disc as thick as the object fills five cells.
    """
    if (resize_labels(labels, size) == 1).sum() >= FEW_CELLS * CELL_OF_GRID**2:
        return picture, labels
    depth = distance_transform_edt(np.pad((labels == 1).numpy(), 1))[1:-1, 1:-1]
    row, column = np.unravel_index(depth.argmax(), depth.shape)
    height, width = labels.shape
    share = max(CLOSEST, 0.8 * depth.max() * size / CELL_OF_GRID) / min(height, width)
    h, w = (min(side, round(share * side)) for side in (height, width))
    top, left = (
        int(np.clip(at - part // 2, 0, side - part)) for at, part, side in ((row, h, height), (column, w, width))
    )
    return picture[:, top : top + h, left : left + w].contiguous(), labels[top : top + h, left : left + w].contiguous()


def _build(backbone: str, weights: Path | str) -> tuple[Method, list[str]]:
    """Prototypes on the backbone that was asked for, or the best there is, and what to expect of them."""
    if weights == "auto" and backbone in ("auto", "tiny"):
        backbone, weights = (imagenet_weights() if backbone == "auto" else None) or FALLBACK
    elif weights == "auto":
        weights = "imagenet"
    if backbone == "auto":
        named = [name for name in BACKBONES if Path(weights).name.startswith(name)]
        if not named and weights not in ("imagenet", "none"):
            raise ValueError(f"Say which network {weights} belongs to: backbone is one of {', '.join(BACKBONES)}.")
        backbone = named[0] if named else "resnet18"
    options = {"stages": "all", "backbone_stages": "layer2,layer3"} if backbone.startswith("resnet") else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        built = build_method("prototype", backbone=backbone, weights=weights, **options)
    return built, _expectation(backbone, built.backbone.weights)


def _expectation(backbone: str, weights: WeightsRecord) -> list[str]:
    """What is known of the masks that these weights give, with the numbers of a results file."""
    if weights.source.startswith("tiny-toy"):
        fetch = "No ImageNet weights are on this machine; weights=imagenet fetches them once."
        return [
            f"Weights: {weights.source}, from drawn shapes alone: this network has never seen a photograph. On real "
            "pictures expect masks that are mostly wrong.",
            *([fetch] if imagenet_weights() is None else []),
        ]
    if weights.source == "none":
        return ["Weights: none. Random features know colours and edges at best: expect no segmentation."]
    lines = [f"Weights: {weights.source} of {backbone}; nothing was trained for these pictures."]
    try:
        runs = json.loads((paths.shipped("results") / MEASURED).read_text(encoding="utf-8"))["runs"]
        run = next(run for run in runs if run["label"] == "12 classes, ImageNet weights")
        reached, everything = run["scores"]["photo"]["miou"], run["floors"]["everything"]
    except (OSError, ValueError, LookupError, StopIteration):
        return lines
    return [
        *lines,
        f"How good that is was measured for resnet18 on PASCAL VOC, one picture shown: {100 * reached:.0f} mIoU, where "
        f"marking the whole picture gives {100 * everything:.0f}. Expect the region rather than the outline, and some "
        "pictures quite wrong.",
    ]


@torch.inference_mode()
def _answer(
    method: Method, encoded: Mapping[str, Tensor], picture: UInt8[Tensor, "3 S S"], shape: Sequence[int]
) -> Bool[Tensor, "H W"]:
    """Where the object is in a picture: scores at the network's size, decided at the picture's own `shape`."""
    small = picture[None].to(next(method.parameters()).device) / 255
    scores = method.decode(encoded, method.encode(small)).float()
    rest, way = F.interpolate(scores, tuple(shape), mode="bilinear", align_corners=False)[0]
    return (way > rest).cpu()


def _overlay(picture: UInt8[Tensor, "3 H W"], labels: Shaped[Tensor, "H W"]) -> Image.Image:
    """The picture with the object (1) tinted and outlined, void (255) striped and the rest pale.

    It is at most OVERLAY_SIDE pixels wide or high.
    """
    small = Image.fromarray(picture.permute(1, 2, 0).numpy())
    small.thumbnail((OVERLAY_SIDE, OVERLAY_SIDE))
    mask, void = (Image.fromarray(255 * (labels == n).to(torch.uint8).numpy()).resize(small.size) for n in (1, VOID))
    pale = Image.blend(small, small.convert("L").convert("RGB"), 0.7)
    tinted = Image.blend(small, Image.new("RGB", small.size, CRIMSON), 0.5)
    width = 2 * round(max(small.size) / 400) + 3
    outline = Image.fromarray(np.asarray(mask) - np.asarray(mask.filter(ImageFilter.MinFilter(width))))
    drawn = Image.composite(tinted, pale, mask)
    drawn.paste(CRIMSON, mask=outline)
    stripes = np.add.outer(*map(np.arange, drawn.size[::-1])) // 4 % 2 * 255
    drawn.paste(Image.fromarray(stripes.astype(np.uint8)).convert("RGB"), mask=void)
    return drawn


class _Thumb:
    """A small overlay with a title, framed when it was shown."""

    def __init__(self, overlay: Image.Image, title: str, framed: bool = False):
        self.picture, self.title, self.framed = overlay.copy(), title, framed
        self.picture.thumbnail((CELL, CELL))


def _draw_sheet(thumbs: Sequence[_Thumb], path: Path) -> None:
    """All of them row by row in one PNG, cells as high as the highest picture."""
    bottom, font, cells = max(thumb.picture.height for thumb in thumbs) + 8, ImageFont.load_default(15), []
    for picture, title, framed in ((thumb.picture, thumb.title, thumb.framed) for thumb in thumbs):
        cell = Image.new("RGB", (CELL + 16, bottom + 34), "white")
        draw = ImageDraw.Draw(cell)
        left, top = (cell.width - picture.width) // 2, bottom - picture.height
        if framed:
            draw.rectangle((left - 4, top - 4, left + picture.width + 3, bottom + 3), CRIMSON)
        cell.paste(picture, (left, top))
        while draw.textlength(title, font) > CELL:
            title = title.rstrip("…")[:-1] + "…"
        draw.text((cell.width // 2, bottom + 9), title, CRIMSON if framed else "black", font, anchor="ma")
        cells.append(cell)
    draw_sheet(cells, path)

"""From a few pictures with masks to the masks of a whole folder: few-shot segmentation as a tool."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

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
from fsslib.data.drawn import Choice, mask_files, read_drawn_mask, read_picture, some
from fsslib.data.folder import describe_masks, find_pictures
from fsslib.data.images import DataError, resize_image, resize_labels
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
    method: Method | str = "prototype",
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
    toy world; the notes say which, and what to expect of it. Weights "imagenet" are fetched once. `method` "prototype"
    needs no training; any other comes trained, as a `Method` that splits into encode and decode, with its own backbone.

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
    supports = _Supports(masks_of, size, choose)
    if progress:
        print("\n".join(supports.understood), flush=True)
    if out.resolve() in {path.parent for path in (*shown, *(path.resolve() for path in found.pictures.values()))}:
        raise DataError(f"{out} holds pictures or masks that are read. Give another folder, so that nothing is lost.")
    method, expected = (method, []) if isinstance(method, Method) else _build(method, backbone, weights)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"The folder {out} cannot be made ({error.strerror}). Give another one.") from error

    _draw_sheet(supports.thumbs, out / "masks_understood.png")

    with evaluating(method, device):
        encoded = supports.encode(method)
        overlap = supports.overlap(method, encoded)
        masks, overlays, thumbs, damaged = {}, {}, [], {}
        on_sheet = list(queries)[:: -(-len(queries) // SHEET_PICTURES)]
        for name, path in tqdm(queries.items(), "segmenting", unit="picture", leave=False, disable=not progress):
            try:
                picture = read_picture(path)
            except DataError as error:
                damaged[name] = str(error)
                continue
            marked = _answer(method, encoded, picture, size)
            masks[name] = _save(Image.fromarray(255 * marked.numpy().astype(np.uint8)), out / f"{name}_mask.png")
            overlay = _overlay(picture, marked)
            overlays[name] = _save(overlay, out / f"{name}_overlay.png")
            if name in on_sheet:
                title = path.name if marked.any() else f"{path.name}: nothing found"
                thumbs.append((_thumb(overlay), title, False))
    if not masks:
        raise DataError("\n".join(["None of the pictures can be read.", *list(damaged.values())[:10]]))
    sheet = out / "contact_sheet.png"
    _draw_sheet([*supports.thumbs[:6], *thumbs], sheet)

    notes, met = [*supports.understood, *found.remarks, *expected], f"met with an IoU of {overlap:.0%}"
    notes.append(
        f"In the picture that was shown its own mask is {met}: expect less elsewhere."
        if len(masks_of) == 1
        else f"A check on the {len(masks_of)} pictures that were shown: answered from the others alone, each one's own "
        f"mask is {met} in the mean."
    )
    if left := [path.name for name, path in found.pictures.items() if name not in queries]:
        notes.append(f"Not segmented, for they were shown: {some(left)}.")
    if len(thumbs) < len(masks):
        notes.append(f"The contact sheet shows {len(thumbs)} of the {len(masks)} pictures.")
    return Segmentation(masks, overlays, sheet, overlap, damaged, supports.understood, tuple(notes))


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


class _Supports:
    """The pictures that are shown and what their masks mark; pictures are read anew when needed, for they are large.

    `understood` says how the masks were read, `thumbs` show it. Raises DataError when there are none, or when one shows
    nothing, or too little at `size`.
    """

    def __init__(self, masks_of: Mapping[Path, list[Path]], size: int, choose: Choice):
        if not masks_of:
            raise DataError("No support is given. Show at least one picture with a mask of the object.")
        self.size, self.masks, self.thumbs = size, {}, []
        understood, remarks = [], []
        for path, files in masks_of.items():
            self.masks[path] = mask = read_drawn_mask(files, path, choose)
            picture = read_picture(path)
            if not (mask.labels == 1).any():
                said = " ".join(remark for remark in mask.remarks if "is empty" not in remark)
                raise DataError(f"{files[0]} is empty. Mark the object in {path.name} anew. {said}".rstrip())
            _, labels = _from_close_by(picture, mask.labels, size)
            if _pixels_left(labels, size) < CELL_OF_GRID**2:
                raise DataError(
                    f"{files[0]} leaves next to nothing of the object at {size} pixels, even from close by. Ask for a "
                    f"larger size, or show a picture in which it is larger than in {path.name}."
                )
            understood.append((some([file.name for file in files], 1), mask))
            remarks += mask.remarks
            if labels.shape != mask.labels.shape:
                remarks.append(
                    f"The object in {path.name} is small, and shown to the network from close by. Where it is as small "
                    "in other pictures, ask for a larger size."
                )
            self.thumbs.append((_thumb(_overlay(picture, mask.labels)), f"shown: {path.name}", True))
        self.understood = (*describe_masks(understood), *remarks)

    def encode(self, method: Method) -> dict[str, Tensor]:
        """What the method keeps of the supports, with the axes [1 episode, 1 way, K shots]."""
        device, parts = next(method.parameters()).device, []
        for path, mask in self.masks.items():
            picture, labels = _from_close_by(read_picture(path), mask.labels, self.size)
            small, marked = resize_image(picture, self.size)[None] / 255, resize_labels(labels, self.size)[None].long()
            with torch.inference_mode():
                parts.append(method.encode(small.to(device), marked.to(device)))
        return {key: torch.cat([part[key] for part in parts])[None, None] for key in parts[0]}

    def overlap(self, method: Method, encoded: Mapping[str, Tensor]) -> float:
        """Mean IoU with the masks, void left out, each picture answered from the others, or from itself if alone."""
        scores, shots = [], torch.arange(len(self.masks))
        for k, (path, mask) in enumerate(self.masks.items()):
            others = shots[shots != k] if len(shots) > 1 else shots
            part = {key: value[:, :, others] for key, value in encoded.items()}
            marked = _answer(method, part, read_picture(path), self.size) & (mask.labels != VOID)
            truth = mask.labels == 1
            scores.append((marked & truth).sum().item() / (marked | truth).sum().item())
        return sum(scores) / len(scores)


def _pixels_left(labels: UInt8[Tensor, "H W"], size: int) -> int:
    return int((resize_labels(labels, size) == 1).sum())


def _from_close_by(
    picture: UInt8[Tensor, "3 H W"], labels: UInt8[Tensor, "H W"], size: int
) -> tuple[UInt8[Tensor, "3 h w"], UInt8[Tensor, "h w"]]:
    """Picture and mask as they are, or where too few cells are marked a window of both around the thickest part.

    There a disc as thick as the object fills five cells.
    """
    if _pixels_left(labels, size) >= FEW_CELLS * CELL_OF_GRID**2:
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


def _build(method: str, backbone: str, weights: Path | str) -> tuple[Method, list[str]]:
    """An untrained method on the backbone that was asked for, or the best there is, and what to expect of it."""
    if method != "prototype":
        raise ValueError(
            f"{method!r} has to be trained first: pass the trained Method. Without training there is 'prototype'."
        )
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
        built = build_method(method, backbone=backbone, weights=weights, **options)
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
    method: Method, encoded: Mapping[str, Tensor], picture: UInt8[Tensor, "3 H W"], size: int
) -> Bool[Tensor, "H W"]:
    """Where the object is in a picture: scores at the network's size, decided at the picture's."""
    small = resize_image(picture, size)[None].to(next(method.parameters()).device) / 255
    scores = method.decode(encoded, method.encode(small)).float()
    rest, way = F.interpolate(scores, picture.shape[1:], mode="bilinear", align_corners=False)[0]
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


def _thumb(overlay: Image.Image) -> Image.Image:
    thumb = overlay.copy()
    thumb.thumbnail((CELL, CELL))
    return thumb


def _draw_sheet(thumbs: Sequence[tuple[Image.Image, str, bool]], path: Path) -> None:
    """Small overlays with titles, framed when they were shown, row by row in one PNG, cells as high as the highest."""
    bottom, font, cells = max(picture.height for picture, *_ in thumbs) + 8, ImageFont.load_default(15), []
    for picture, title, framed in thumbs:
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


def _save(image: Image.Image, path: Path) -> Path:
    """Write a PNG whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        image.save(temporary, "PNG")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise DataError(f"{path} cannot be written ({error.strerror}). Make room, or give another folder.") from error
    return path

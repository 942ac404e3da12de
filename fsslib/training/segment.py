"""From a few pictures with masks to the masks of a whole folder: few-shot segmentation as a tool."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, UInt8
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from torch import Tensor
from tqdm.auto import tqdm

from fsslib import paths
from fsslib.blocks.backbones import BACKBONES, WeightsRecord
from fsslib.data.check import draw_sheet
from fsslib.data.folder import describe_masks, find_pictures, read_drawn_mask, read_picture, some
from fsslib.data.images import DataError, resize_image, resize_labels
from fsslib.methods import build_method
from fsslib.methods.base import Method

FALLBACK = ("tiny", "tiny-toy-fold4.pt")
"""Backbone and shipped weights where there are none of ImageNet."""

MEASURED = "sg_one_voc.json"
"""The results file that says how good untrained prototypes are on photographs, at the settings used here."""

CRIMSON = (228, 19, 79)
OVERLAY_SIDE = 1280
"""Longest side of an overlay in pixels; masks have the picture's own size."""

SHEET_PICTURES = 48
CELL = 220

Pair = tuple[Path | str, Path | str]


@dataclass(frozen=True)
class Segmentation:
    """What `segment` wrote, by the pictures' names, and what there is to say about it.

    `overlap` is the IoU, in [0, 1], of the answers on the support pictures with their own masks: of each picture with
    only the others shown, or, where there is one, with that one shown, which flatters. `damaged` has a message for each
    picture that could not be read. `notes` are sentences.
    """

    masks: dict[str, Path]
    overlays: dict[str, Path]
    sheet: Path
    overlap: float
    damaged: dict[str, str]
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
    progress: bool = False,
) -> Segmentation:
    """Find in every picture of the folder `query` what the masks of `support`, pairs of picture and mask, mark.

    Writes to the folder `out`, for each picture NAME: NAME_mask.png, 255 the object and 0 the rest, at the size of the
    upright picture; NAME_overlay.png to look at, at most 1280 pixels wide or high; and one contact_sheet.png. What an
    earlier call wrote there is replaced. Pictures of the support are not segmented again.

    The network sees pictures at `size` x `size` pixels, as in evaluation. `backbone` and `weights` "auto" are the first
    ResNet of which ImageNet weights are on this machine (`imagenet_weights`), else a tiny network that only knows the
    toy world; the notes say which, and what to expect of it. Weights "imagenet" are fetched once. `method` "prototype"
    needs no training; any other comes trained, as a `Method` that splits into encode and decode, with its own backbone.

    Pictures and masks are read as by `fsslib.data.folder`. Raises DataError, before anything is written, when the
    supports, the query folder or `out` cannot be used; a query picture that cannot be read is named in `damaged`, and
    raises only when no other is left.
    """
    pairs = [(Path(picture), Path(mask)) for picture, mask in support]
    found = find_pictures(query)
    shown = {picture.resolve() for picture, _ in pairs}
    queries = {name: path for name, path in found.pictures.items() if path.resolve() not in shown}
    if not queries:
        raise DataError(f"{query} holds only pictures of the support: there is nothing to segment.")
    supports = _Supports(pairs, size)
    understood = supports.check()
    out = Path(out)
    if out.resolve() in {path.resolve().parent for path in (*found.pictures.values(), *sum(pairs, ()))}:
        raise DataError(f"{out} holds pictures or masks that are read. Give another folder, so that nothing is lost.")
    method, expected = (method, []) if isinstance(method, Method) else _build(method, backbone, weights)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"The folder {out} cannot be made ({error.strerror}). Give another one.") from error

    was_training = method.training
    method.to(device).eval()
    try:
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
                thumbs.append(_Thumb(overlay, path.name if marked.any() else f"{path.name}: nothing found"))
    finally:
        method.train(was_training)
    if not masks:
        raise DataError("\n".join(["None of the pictures can be read.", *list(damaged.values())[:10]]))
    sheet = out / "contact_sheet.png"
    _draw_sheet([*supports.thumbs(), *thumbs], sheet)

    notes = [*understood, *found.remarks, *expected, _say_overlap(overlap, len(pairs))]
    if left := [path.name for name, path in found.pictures.items() if name not in queries]:
        notes.append(f"Not segmented, for they were shown: {some(left)}.")
    if len(thumbs) < len(masks):
        notes.append(f"The contact sheet shows {len(thumbs)} of the {len(masks)} pictures.")
    return Segmentation(masks, overlays, sheet, overlap, damaged, tuple(notes))


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


@dataclass(frozen=True)
class _Supports:
    """The pictures that are shown, with their masks: read when they are needed, for photographs are large."""

    pairs: list[tuple[Path, Path]]
    size: int

    def check(self) -> list[str]:
        """How the masks were understood. Raises DataError when there are none, or when one shows nothing."""
        if not self.pairs:
            raise DataError("No support is given. Show at least one picture with a mask of the object.")
        understood, remarks = [], []
        for picture, path in self.pairs:
            mask = read_drawn_mask(path, picture)
            if not resize_labels(mask.labels, self.size).any():
                found = f"leaves nothing of the object at {self.size} pixels" if mask.labels.any() else "is empty"
                raise DataError(f"{path} {found}. Mark the object in {picture.name} anew, or ask for a larger size.")
            understood.append((path.name, mask.rule, mask.share))
            remarks += mask.remarks
        return [*describe_masks(understood), *remarks]

    def encode(self, method: Method) -> dict[str, Tensor]:
        """What the method keeps of the supports, with the axes [1 episode, 1 way, K shots]."""
        device = next(method.parameters()).device
        parts = []
        for picture, labels in self._read():
            small, mask = resize_image(picture, self.size)[None] / 255, resize_labels(labels, self.size)[None].long()
            with torch.inference_mode():
                parts.append(method.encode(small.to(device), mask.to(device)))
        return {key: torch.cat([part[key] for part in parts])[None, None] for key in parts[0]}

    def overlap(self, method: Method, encoded: Mapping[str, Tensor]) -> float:
        """Mean IoU with the masks, each picture answered from the others, or from itself where it is alone."""
        scores, shots = [], torch.arange(len(self.pairs))
        for k, (picture, labels) in enumerate(self._read()):
            others = shots[shots != k] if len(shots) > 1 else shots
            marked = _answer(method, {key: value[:, :, others] for key, value in encoded.items()}, picture, self.size)
            truth = labels == 1
            scores.append((marked & truth).sum().item() / (marked | truth).sum().item())
        return sum(scores) / len(scores)

    def thumbs(self) -> list["_Thumb"]:
        """Up to six of them for the contact sheet."""
        shown = zip(self.pairs[:6], self._read())
        return [
            _Thumb(_overlay(picture, labels == 1), f"shown: {path.name}", True)
            for (path, _), (picture, labels) in shown
        ]

    def _read(self) -> Iterator[tuple[Tensor, Tensor]]:
        for picture, mask in self.pairs:
            yield read_picture(picture), read_drawn_mask(mask, picture).labels


def _build(method: str, backbone: str, weights: Path | str) -> tuple[Method, list[str]]:
    """An untrained method on the backbone that was asked for, or the best there is, and what to expect of it."""
    if method != "prototype":
        raise ValueError(
            f"{method!r} has to be trained first: pass the trained Method. Without training there is 'prototype'."
        )
    if weights == "auto":
        if backbone in ("auto", "tiny"):
            backbone, weights = (imagenet_weights() if backbone == "auto" else None) or FALLBACK
        else:
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
        lines = [
            f"Weights: {weights.source}, from drawn shapes alone: this network has never seen a photograph. On real "
            "pictures expect masks that are mostly wrong."
        ]
        if imagenet_weights() is None:
            lines.append("No ImageNet weights are on this machine; weights=imagenet fetches them once.")
        return lines
    if weights.source == "none":
        return ["Weights: none. Random features know colours and edges at best: expect no segmentation."]
    lines = [f"Weights: {weights.source} of {backbone}; nothing was trained for these pictures."]
    try:
        runs = json.loads((paths.shipped("results") / MEASURED).read_text(encoding="utf-8"))["runs"]
        rows = [run for run in runs if run["label"] == "12 classes, ImageNet weights"]
        reached, everything = rows[0]["scores"]["photo"]["miou"], rows[0]["floors"]["everything"]
    except (OSError, ValueError, LookupError):
        return lines
    return [
        *lines,
        f"How good that is was measured for resnet18 on PASCAL VOC, one picture shown: {100 * reached:.0f} mIoU, where "
        f"marking the whole picture gives {100 * everything:.0f}. Expect the region rather than the outline, and some "
        "pictures quite wrong.",
    ]


def _say_overlap(overlap: float, supports: int) -> str:
    if supports == 1:
        return f"In the picture that was shown its own mask is met with an IoU of {overlap:.0%}: expect less elsewhere."
    return (
        f"A check on the {supports} pictures that were shown: answered from the others alone, each one's own mask is "
        f"met with an IoU of {overlap:.0%} in the mean."
    )


@torch.inference_mode()
def _answer(
    method: Method, encoded: Mapping[str, Tensor], picture: UInt8[Tensor, "3 H W"], size: int
) -> Bool[Tensor, "H W"]:
    """Where the object is in a picture: scores at the network's size, decided at the picture's."""
    small = resize_image(picture, size)[None].to(next(method.parameters()).device) / 255
    scores = method.decode(encoded, method.encode(small)).float()
    rest, way = F.interpolate(scores, picture.shape[1:], mode="bilinear", align_corners=False)[0]
    return (way > rest).cpu()


def _overlay(picture: UInt8[Tensor, "3 H W"], marked: Bool[Tensor, "H W"]) -> Image.Image:
    """The picture with the object tinted and outlined, the rest pale, at most OVERLAY_SIDE pixels wide or high."""
    small, mask = (Image.fromarray(x.numpy()) for x in (picture.permute(1, 2, 0), 255 * marked.to(torch.uint8)))
    small.thumbnail((OVERLAY_SIDE, OVERLAY_SIDE))
    mask = mask.resize(small.size)
    pale = Image.blend(small, small.convert("L").convert("RGB"), 0.7)
    tinted = Image.blend(small, Image.new("RGB", small.size, CRIMSON), 0.5)
    width = 2 * round(max(small.size) / 400) + 3
    outline = Image.fromarray(np.asarray(mask) - np.asarray(mask.filter(ImageFilter.MinFilter(width))))
    drawn = Image.composite(tinted, pale, mask)
    drawn.paste(CRIMSON, mask=outline)
    return drawn


class _Thumb:
    """A small overlay with a title, framed when it was shown."""

    def __init__(self, overlay: Image.Image, title: str, framed: bool = False):
        self.picture, self.title, self.framed = overlay.copy(), title, framed
        self.picture.thumbnail((CELL, CELL))


def _draw_sheet(thumbs: Sequence[_Thumb], path: Path) -> None:
    """All of them row by row in one PNG, cells as high as the highest picture."""
    bottom, font, cells = max(thumb.picture.height for thumb in thumbs) + 8, ImageFont.load_default(15), []
    for thumb in thumbs:
        picture, title = thumb.picture, thumb.title
        cell = Image.new("RGB", (CELL + 16, bottom + 34), "white")
        draw = ImageDraw.Draw(cell)
        left, top = (cell.width - picture.width) // 2, bottom - picture.height
        if thumb.framed:
            draw.rectangle((left - 4, top - 4, left + picture.width + 3, bottom + 3), CRIMSON)
        cell.paste(picture, (left, top))
        while draw.textlength(title, font) > CELL:
            title = title.rstrip("…")[:-1] + "…"
        draw.text((cell.width // 2, bottom + 9), title, CRIMSON if thumb.framed else "black", font, anchor="ma")
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

"""Benchmarks as their papers cut them: the classes of a fold, and the lists of (image, class) pairs.

Lists are made from label maps by rule, so that nothing is taken on trust: what released code publishes is held against
what the rule gives. The rules were read from the code of OSLSM, PFENet and HSNet and checked on small copies of
566 images of VOC and 128 of COCO; where one is a guess, its docstring says so. `fsslib.data.manifests` draws test
episodes from such lists.
"""

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from tqdm import tqdm

from fsslib.data.coco import paint, read_instances
from fsslib.data.fss1000 import PARTS, class_ids, class_list
from fsslib.data.images import DataError, LabelledImageSet
from fsslib.data.names import class_id
from fsslib.data.pascal import CLASS_NAMES, FOLDS
from fsslib.episodes import VOID

Pair = tuple[str, int]
"""An image's id and the global id of a class it shows."""

# Classes

_COCO = """person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign,
parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella, handbag,
tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, surfboard, tennis
racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog,
pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop, mouse, remote, keyboard, cell
phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear, hair drier, toothbrush"""

COCO_CLASSES = tuple(class_id(" ".join(name.split())) for name in _COCO.split(","))
"""Global ids of COCO's classes in the order of its category numbers: place k is "class k" of COCO-20i."""

_FSS_SHA256 = {
    "trn": "4e236fa8eda2543a988f734f8ea728a6f321bb426ec79cc121c5f4f115f41f10",
    "val": "bae6fbf5aa020ce4e589b76c51da21cc9b77970877579612e0a0d3c4b43688b0",
    "test": "0efbe526c0dd445b580de07cae179df51fffc91255599e96b13d8b16e7e04c0c",
}


def _check_fold(fold: int, benchmark: str) -> int:
    if fold not in range(4):
        raise DataError(f"{benchmark} has the folds 0, 1, 2 and 3; asked for {fold!r}.")
    return fold


def pascal_fold(fold: int) -> tuple[int, ...]:
    """The novel classes of a fold of PASCAL-5i, 5 fold + 1 to 5 fold + 5 in VOC's numbers."""
    return FOLDS[_check_fold(fold, "PASCAL-5i")]


def coco_fold(fold: int, rule: str = "interleaved") -> tuple[int, ...]:
    """Global ids of the twenty novel classes of a fold of COCO-20i, by one of the two rules in use.

    "interleaved": every fourth of COCO's classes from number `fold` on (FWB, PFENet with use_split_coco, HSNet, BAM and
    most work since). "contiguous": numbers 20 fold to 20 fold + 19 (PANet). Fifteen novel classes of a fold by one rule
    are training classes by the other, so scores by different rules do not compare. Raises DataError for others.
    """
    folds = {"interleaved": slice(fold, None, 4), "contiguous": slice(20 * fold, 20 * fold + 20)}
    if rule not in folds:
        raise DataError(f"COCO-20i is cut by the rules {' and '.join(folds)}; asked for {rule!r}.")
    _check_fold(fold, "COCO-20i")
    return COCO_CLASSES[folds[rule]]


def coco_to_pascal(fold: int) -> tuple[int, ...]:
    """VOC's classes that the training classes of COCO-20i's fold (interleaved) do not have: what COCO to PASCAL tests.

    RePRI's protocol. Its own table swaps VOC's cat and car; ids here are by name.
    """
    return tuple(sorted(CLASS_NAMES.keys() & set(coco_fold(fold))))


def fss_part(part: str) -> dict[str, int]:
    """Global ids of the classes of a part of FSS-1000, by the names of their folders in alphabetical order.

    Raises DataError when the list that comes with fsslib was changed: scores on another part do not compare.
    """
    if part not in PARTS:
        raise DataError(f"FSS-1000 has the parts {', '.join(PARTS)}; asked for {part!r}.")
    names = class_list(part)
    sha256 = hashlib.sha256("".join(f"{name}\n" for name in names).encode()).hexdigest()
    if len(set(names)) != PARTS[part] or sha256 != _FSS_SHA256[part]:
        raise DataError(
            f"The list of FSS-1000's part {part!r} has {len(set(names))} classes and the hash {sha256[:12]}...; there "
            f"should be {PARTS[part]} and {_FSS_SHA256[part][:12]}.... Restore data/splits/fss_1000/{part}.txt."
        )
    return class_ids(part)


# Lists of (image, class) pairs


@dataclass(frozen=True)
class PairRule:
    """When an image counts as showing a class: `minimum` pixels of it among every `step`-th from number `first` on."""

    minimum: int
    first: int = 0
    step: int = 1

    def counts(self, labels: Tensor) -> dict[int, int]:
        """Those pixels of a label map [H, W], counted by class; background and void are none."""
        classes, counts = labels[self.first :: self.step, self.first :: self.step].unique(return_counts=True)
        return {c: n for c, n in zip(classes.tolist(), counts.tolist()) if c not in (0, VOID)}

    def classes(self, labels: Tensor) -> tuple[int, ...]:
        return tuple(c for c, n in self.counts(labels).items() if n >= self.minimum)


ON_GRID = PairRule(3, first=1, step=32)
"""The unwritten rule behind HSNet's PASCAL lists, trn and val: OSLSM's filter of small objects, which shrinks a mask to
1/32 (nearest) and keeps what has more than two pixels left. Thin or unluckily placed objects go, whatever their area.

Of 566 VOC images, kept at 320 of their 500 pixels, 74 of 1,104 pairs are not in HSNet's lists (14 of them
in val). The shrunken maps leave it open for 43 pairs on which side of the rule they are; all 1,061 others agree with
it. The best threshold on the area contradicts 24. Which pixel of a cell is taken (0 or 1, and so a few pairs of a full
list) hangs on rounding errors of the library used at the time."""

BY_AREA = PairRule(2048)
"""PFENet's and BAM's rule, at the label map's own size: 2 x 32 x 32 pixels, meant as OSLSM's and not the same.

HSNet's COCO lists follow it too, on label maps in which later objects lie on top (`coco_label_maps`): they have as many
images as BAM's, and of 123 pairs in the 39 of their images among 128 of train2017, kept at 300 of 640 pixels, two
disagree."""

PUBLISHED_PAIRS = {
    ("pascal", "trn"): (2286, 3425, 5883, 2086),
    ("pascal", "val"): (346, 451, 725, 346),
    ("coco", "trn"): (95476, 133927, 141054, 141016),
    ("coco", "val"): (35783, 17912, 14563, 14315),
}
"""Lengths of HSNet's lists, fold by fold. COCO's training lists hold a fold's training classes, all others its novel
classes."""

PUBLISHED_SHA256 = {
    "trn": (
        "40fded8be6afbc4b70953277f2a178af8055cddd4e73fb4646b7bf19704b9da2",
        "558167c3c6fea0cda1bb7c7a275e66d5de7bc13cbc97e00c5872ac84d5f0954e",
        "d07e35f4a4ae95774c619bafb57d65d682dbd5b9f33c7f71a4f5cef8e3f99609",
        "ffe09100c0c4d9c19d074a33b0f29fe5a89a730579ba39a9f9e908186298ac17",
    ),
    "val": (
        "748e2f4732ac502cb3aa1f3768936b394bd7ba4e611ac5bf959291a268e249df",
        "afce1929e4dacbc13c07f9a26d4ce7738d415e1b18443fe173e58303836f5c14",
        "50b1f5218e8f882ca65d85da5be230b978a70067e9b3e0e9fca1528f546bd7fb",
        "c3825d7c52d1608d4c62c5b85d6ef3f74cf5898032bc068a94c971df17bdf71a",
    ),
}
"""Hashes of HSNet's PASCAL lists as files, which is what `list_text` gives for equal pairs."""


def label_maps(images: LabelledImageSet) -> Iterator[tuple[str, Tensor]]:
    """Each image's id and label map, at its own size and with global class ids."""
    for image_id in tqdm(images.ids, f"label maps of {images.name}", unit="image", leave=False, disable=None):
        yield image_id, images.original(image_id)[1]


def coco_label_maps(annotations: Path) -> Iterator[tuple[str, Tensor]]:
    """Each image's id and label map as HSNet has it: later objects of the JSON on top (`paint`).

    Without the images: to judge lists by. Raises DataError as `read_instances`, and for what cannot be painted.
    """
    pictures, ids = read_instances(annotations)
    for image_id, picture in tqdm(pictures.items(), annotations.name, unit="image", leave=False, disable=None):
        try:
            yield image_id, torch.from_numpy(paint(picture, ids, "later"))
        except ValueError as error:
            raise DataError(f"{annotations}: {picture.file}, {error}") from error


def pairs_of(maps: Iterable[tuple[str, Tensor]], rule: PairRule) -> tuple[Pair, ...]:
    """The (image, class) pairs of label maps by a rule, sorted by image, then class."""
    return tuple(sorted((image_id, c) for image_id, labels in maps for c in rule.classes(labels)))


def list_text(pairs: Iterable[Pair], part: Literal["trn", "val"]) -> str:
    """Pairs as HSNet's lists have them, "2007_000033__01" a line: val by image, trn by class and then image."""
    key = (lambda pair: pair) if part == "val" else (lambda pair: pair[::-1])
    return "".join(f"{image_id}__{c:02d}\n" for image_id, c in sorted(pairs, key=key))


def image_list_text(ids: Iterable[str]) -> str:
    """VOC images as PFENet's lists have them: image and label map, sorted."""
    return "".join(f"JPEGImages/{i}.jpg SegmentationClassAug/{i}.png\n" for i in sorted(ids))


def read_pairs(path: Path) -> tuple[Pair, ...]:
    """The pairs of a list in HSNet's form, in its order. Raises DataError naming a line that is none."""
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if match := re.fullmatch(r"(\S+)__(\d+)", line.strip()):
            found.append((match[1], int(match[2])))
        elif line.strip():
            raise DataError(f"{path}, line {number}: {line[:60]!r} is no pair such as 2007_000033__01: restore it.")
    return tuple(found)


def differences(
    pairs: Iterable[Pair], published: Iterable[Pair], images: Collection[str]
) -> tuple[tuple[Pair, ...], tuple[Pair, ...]]:
    """Pairs of these images that only the first list has, and those that only the published one has."""
    ours, theirs = ({pair for pair in side if pair[0] in images} for side in (pairs, published))
    return tuple(sorted(ours - theirs)), tuple(sorted(theirs - ours))


def check_full(lists: Sequence[Sequence[Pair]], data: Literal["pascal", "coco"], part: Literal["trn", "val"]) -> str:
    """Hold the lists of the four folds, made of the complete data set, against HSNet's; a sentence about it.

    Raises DataError where a list is longer or shorter by more than 1 %: then files are missing, or label maps are not
    the released ones. Less is what the rules leave open (see `ON_GRID`, `coco_label_maps`).
    """
    found, expected = tuple(map(len, lists)), PUBLISHED_PAIRS[data, part]
    if any(abs(n - m) > 0.01 * m for n, m in zip(found, expected, strict=True)):
        raise DataError(
            f"{data}, {part}: the four folds have {found} pairs of image and class, published are {expected}. Images "
            "are missing, or the label maps are of another release: see `fsslib data check`."
        )
    if data == "pascal":
        hashes = (hashlib.sha256(list_text(pairs, part).encode()).hexdigest() for pairs in lists)
        same = [fold for fold, sha256 in enumerate(hashes) if sha256 == PUBLISHED_SHA256[part][fold]]
        return f"{data}, {part}: {found} pairs, published {expected}; equal byte for byte: folds {same or 'none'}"
    return f"{data}, {part}: {found} pairs, published {expected}"

"""Scores of segmentation from integer pixel counts: for the ways of episodes, and for a fixed list of classes.

`FewShotMeter`: mIoU over classes, FB-IoU and exact ratio, under named protocols. Few-shot segmentation's mIoU sums
intersections and unions of a class over *all* its episodes, divides once, and averages over the classes. A mean of
per-episode IoUs, a background counted as a class, or classes pooled in one bin give other numbers under the same name;
notebook 00 shows how far apart they lie.

`SegmentationMeter`: the mIoU and pixel accuracy of semantic segmentation, from one confusion matrix over all images.

One rule for both: without a labelled pixel there is no score (ValueError); what was not asked where pixels are labelled
has none (None, left out of the mean); what was asked and is in neither truth nor prediction was answered rightly (1).
A segmenter is asked for the classes in the truth, a few-shot method for its ways.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from fsslib.episodes import VOID
from fsslib.protocols import PROTOCOLS, Protocol, protocol_named  # noqa: F401 (named from here elsewhere)


@dataclass(frozen=True)
class _Score:
    """What both meters compute. All ratios are in [0, 1]; a class that nothing asks for or shows has None."""

    miou: float
    per_class: dict[str | int, float | None]


@dataclass(frozen=True)
class Score(_Score):
    """What `FewShotMeter.compute` returns."""

    fb_iou: float
    episodes: int
    exact_ratio: float


@dataclass(frozen=True)
class SegmentationScore(_Score):
    """What `SegmentationMeter.compute` returns."""

    pixel_accuracy: float
    images: int


class FewShotMeter:
    """Counts pixels per episode and way, in int64, and turns the counts into scores when asked.

    Keeping one row per episode and way makes batches irrelevant and leaves all that intervals and paired tests need.
    Columns of `ways`: episode, class id, TP, FP, FN. Columns of `binary`, one row an episode: TP, FP, FN, TN of any way
    against background. Column of `exact`: 0 or 1.

    Void pixels (255 in the labels) are in no counter. A way that is absent from its query has no TP or FN. What is
    predicted for it is kept as FP; by `absent` (see `Protocol`) `compute` adds that to its class's union, as iFSL does,
    or leaves it out, as PANet's Metric does, whose queries show one of two ways for certain and the other by chance.
    PANet's FB-IoU differs too: its foreground are the counts of the ways that are there, one way taken for another is
    an error, and its background leaves out queries that show none. HSNet's and PFENet's queries show their one way.

    An episode that is void all over is in `episodes`, as such an image is in `SegmentationScore.images`, and in no
    ratio. HSNet's code counts in float32, which loses low bits beyond 2^24, and reports IoU 0 for unseen classes.

    Raises ValueError for another `absent`.
    """

    def __init__(self, class_ids: Iterable[int], absent: str = "false_positives"):
        if absent not in ("false_positives", "dropped"):
            raise ValueError(f'Absent ways are "false_positives" or "dropped"; found {absent!r}.')
        self.class_ids, self.absent = tuple(class_ids), absent
        self.ways = torch.zeros(0, 5, dtype=torch.int64)
        self.binary = torch.zeros(0, 4, dtype=torch.int64)
        self.exact = torch.zeros(0, dtype=torch.int64)

    def update(
        self,
        prediction: Int[Tensor, "B H W"],
        labels: Int[Tensor, "B H W"],
        class_ids: Int[Tensor, "B N"],
        presence: Bool[Tensor, "B N"] | None = None,
    ) -> None:
        """Add a batch. `presence` is the claim which ways are there; default: those with a predicted pixel.

        Raises ValueError for a class the meter was not made for, and for predictions outside 0..N.
        """
        ways = class_ids.shape[1]
        if unknown := set(class_ids.flatten().tolist()) - set(self.class_ids):
            raise ValueError(f"Classes {sorted(unknown)} are not among the meter's {list(self.class_ids)}.")
        _hold_maps(prediction, labels, ways, " (background and the ways)")

        predicted, true, valid = prediction.flatten(1), labels.flatten(1), (labels != VOID).flatten(1)
        way = torch.arange(1, ways + 1, device=labels.device)[None, :, None]
        cells = _cells(predicted[:, None] == way, true[:, None] == way, valid[:, None])
        episode = torch.arange(len(labels), device=labels.device)[:, None] + len(self.binary)
        rows = torch.stack([episode.expand_as(class_ids), class_ids], -1)
        self.ways = torch.cat([self.ways, torch.cat([rows, cells[..., :3]], -1).flatten(0, 1).cpu()])
        self.binary = torch.cat([self.binary, _cells(predicted > 0, true > 0, valid).cpu()])

        right, false, missed, _ = cells.unbind(-1)
        claimed = right + false > 0 if presence is None else presence
        self.exact = torch.cat([self.exact, (claimed == (right + missed > 0)).all(-1).long().cpu()])

    def __add__(self, other: "FewShotMeter") -> "FewShotMeter":
        """The meter that saw the episodes of both, other's after self's. Raises ValueError for another `absent`."""
        if self.absent != other.absent:
            raise ValueError(f"Meters of other rules for absent ways: {self.absent!r} and {other.absent!r}.")
        merged = FewShotMeter(dict.fromkeys((*self.class_ids, *other.class_ids)), self.absent)
        merged.ways = torch.cat([self.ways, other.ways + torch.tensor([len(self.binary), 0, 0, 0, 0])])
        merged.binary = torch.cat([self.binary, other.binary])
        merged.exact = torch.cat([self.exact, other.exact])
        return merged

    def _counted(self) -> Int[Tensor, "rows 5"]:
        """The rows of `ways` that are scored."""
        pixels = self.binary.sum(1)
        if not pixels.any():
            raise ValueError(f"The meter has seen no labelled pixel ({len(self.binary)} episodes).")
        rows = self.ways[pixels[self.ways[:, 0]] > 0]
        if self.absent == "dropped":
            rows = rows[rows[:, 2] + rows[:, 4] > 0]
            if not len(rows):
                raise ValueError(f"No way is in its query ({len(self.binary)} episodes), and absent ones are dropped.")
        return rows

    def compute(self) -> Score:
        """The scores so far. Raises ValueError when no labelled pixel was seen, rather than returning a number."""
        rows, binary = self._counted(), self.binary
        per_class: dict[int, float | None] = {}
        for c in self.class_ids:
            own = rows[rows[:, 1] == c]
            per_class[c] = _iou(*own[:, 2:].sum(0).tolist()) if len(own) else None
        foreground = binary[:, :3]
        if self.absent == "dropped":
            foreground, binary = rows[:, 2:], binary[binary[:, 1] + binary[:, 3] > 0]
        _, fp, fn, tn = binary.sum(0).tolist()
        return Score(
            miou=_mean(per_class.values()),
            fb_iou=(_iou(*foreground.sum(0).tolist()) + _iou(tn, fp, fn)) / 2,
            per_class=per_class,
            episodes=len(self.binary),
            exact_ratio=self.exact[self.binary.any(1)].double().mean().item(),
        )

    def without_looking(self) -> float:
        """The mIoU of marking every pixel for each way of the same episodes: the floor under any score."""
        episode, class_id, true_positive, _, false_negative = self._counted().T
        pixels, truth = self.binary.sum(1)[episode], true_positive + false_negative
        shares = [(truth[class_id == c].sum() / pixels[class_id == c].sum()).item() for c in class_id.unique()]
        return _mean(shares)


def _iou(right: int, *wrong: int) -> float:
    """Intersection over union; 1 for what is in neither truth nor prediction."""
    union = right + sum(wrong)
    return right / union if union else 1.0


def _mean(ious: Iterable[float | None]) -> float:
    """The mean of those that are there."""
    seen = [iou for iou in ious if iou is not None]
    return sum(seen) / len(seen)


def _cells(says: Bool[Tensor, "*B P"], is_: Bool[Tensor, "*B P"], valid: Bool[Tensor, "*#B P"]) -> Int[Tensor, "*B 4"]:
    """The valid pixels that are TP, FP, FN and TN."""
    pairs = ((says, is_), (says, ~is_), (~says, is_), (~says, ~is_))
    return torch.stack([(a & b & valid).sum(-1) for a, b in pairs], -1)


def _hold_maps(prediction: Tensor, labels: Tensor, most: int, more: str = "") -> None:
    if prediction.shape != labels.shape:
        raise ValueError(f"Prediction {tuple(prediction.shape)} and labels {tuple(labels.shape)} differ in shape.")
    _hold_within(prediction, most, f"Predictions must lie in 0..{most}{more}")


def _hold_within(values: Tensor, most: int, rule: str) -> None:
    if values.numel() and not 0 <= values.min() <= values.max() <= most:
        low, high = (v.item() for v in values.aminmax())
        raise ValueError(f"{rule}; found {low}..{high}.")


class SegmentationMeter:
    """Counts the pixels of a segmenter with a fixed list of classes, in int64, and turns the counts into scores.

    `classes` are the names by number, 0 to C-1, or just C; `per_class` has the names, else the numbers, as its keys.

    `confusion` [C, C] has a row for each true class and a column for each predicted one. `images` [N, C, 3] has the TP,
    true and predicted pixels of each class in each image, in the order seen: what intervals over images need. Void
    pixels (255 in the labels) are in neither.

    A class's IoU is TP / (true + predicted - TP) over all images together. The mean goes over the classes that are in
    the truth of any image, as in PixDA's evaluation; a class that is only predicted has no IoU of its own, and its
    pixels are missed by the classes they belong to.
    """

    def __init__(self, classes: Mapping[int, str] | int):
        numbered = dict(enumerate(range(classes))) if isinstance(classes, int) else dict(classes)
        if not numbered or sorted(numbered) != list(range(len(numbered))):
            raise ValueError(f"Classes are numbered 0 .. C-1, at least one; found {sorted(numbered)}.")
        if len(set(numbered.values())) < len(numbered):
            raise ValueError(f"Two classes have the same name: {', '.join(map(str, numbered.values()))}.")
        self.class_names: tuple[str | int, ...] = tuple(numbered[c] for c in range(len(numbered)))
        self.confusion = torch.zeros(len(numbered), len(numbered), dtype=torch.int64)
        self.images = torch.zeros(0, len(numbered), 3, dtype=torch.int64)

    def update(self, prediction: Int[Tensor, "B H W"], labels: Int[Tensor, "B H W"]) -> None:
        """Add a batch of any size. Raises ValueError for a prediction outside 0 .. C-1, also on void, and for labels
        that are neither that nor void.
        """
        batch, count, valid = len(labels), len(self.class_names), labels != VOID
        _hold_maps(prediction, labels, count - 1)
        _hold_within(labels[valid], count - 1, f"Labels must lie in 0..{count - 1}, or {VOID} for void")
        image = torch.arange(batch, device=labels.device)[:, None, None].expand_as(labels)
        cell = (image * count + labels) * count + prediction
        confusion = torch.bincount(cell[valid], minlength=batch * count**2).view(batch, count, count).cpu()
        self.confusion = self.confusion + confusion.sum(0)
        counts = (confusion.diagonal(dim1=1, dim2=2), confusion.sum(2), confusion.sum(1))
        self.images = torch.cat([self.images, torch.stack(counts, -1)])

    def _ious(self) -> list[float | None]:
        if not self.confusion.any():
            raise ValueError(f"The meter has seen no labelled pixel ({len(self.images)} images).")
        true, predicted = self.confusion.sum(1), self.confusion.sum(0)
        rows = torch.stack([self.confusion.diagonal(), true, predicted], 1).tolist()
        return [right / (true + predicted - right) if true else None for right, true, predicted in rows]

    def compute(self) -> SegmentationScore:
        """The scores so far. Raises ValueError when no labelled pixel was seen, rather than returning a number."""
        ious = self._ious()
        return SegmentationScore(
            miou=_mean(ious),
            per_class=dict(zip(self.class_names, ious, strict=True)),
            pixel_accuracy=self.confusion.trace().item() / self.confusion.sum().item(),
            images=len(self.images),
        )

    def miou_of(self, class_ids: Iterable[int]) -> float:
        """The mean IoU of some classes, by number: those of them that are in the truth.

        The decision was still among all C classes: a pixel given to a class outside the subset counts as missed, as in
        the 16- and 13-class views that benchmarks take of 19 classes (`fsslib.data.sets.SUBSETS`). Raises
        ValueError for an unknown number, and when none of the classes is in the truth.
        """
        chosen, ious = sorted(set(class_ids)), self._ious()
        if unknown := [c for c in chosen if c not in range(len(ious))]:
            raise ValueError(f"Classes {unknown} are not among the meter's 0..{len(ious) - 1}.")
        if all(ious[c] is None for c in chosen):
            raise ValueError(f"No labelled pixel shows any of {[self.class_names[c] for c in chosen]}: no mean IoU.")
        return _mean(ious[c] for c in chosen)

    def without_looking(self) -> float:
        """The mIoU of naming the most common class everywhere in the same images: the floor under any score."""
        seen = [iou for iou in self._ious() if iou is not None]
        true = self.confusion.sum(1)
        return (true.max() / true.sum() / len(seen)).item()

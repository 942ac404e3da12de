"""Checks for the exercises of notebook 00: the counts of an episode, mIoU, leaks, and scores that flatter."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fsslib.episodes import VOID, EpisodeRow
from fsslib.metrics import FewShotMeter

__all__ = ["check_counts_per_way", "check_find_leaks", "check_flattering_scores", "check_miou"]


def check_counts_per_way(your_function: Callable[[Tensor, Tensor, int], Sequence]) -> None:
    """`your_function(prediction [H, W], labels [H, W], ways)` returns TP, FP and FN of each way, void not counted.

    Raises AssertionError with a hint for the usual slips: void counted, an absent way dropped, ways not told apart.
    """
    generator = torch.Generator().manual_seed(0)
    for trial in range(20):
        ways = 1 + trial % 3
        prediction = torch.randint(0, ways + 1, (9, 7), generator=generator)
        labels = torch.randint(0, ways + 1, (9, 7), generator=generator)
        labels[labels == ways] = 0 if trial % 4 == 3 else ways
        labels[torch.rand(9, 7, generator=generator) < 0.2] = VOID
        expected = _counts(prediction, labels, ways)
        found = [tuple(int(n) for n in row) for row in your_function(prediction.clone(), labels.clone(), ways)]
        if found == expected:
            continue
        assert len(found) == ways, (
            f"{ways} ways call for {ways} rows of TP, FP, FN; found {len(found)}. A way that is absent from the labels "
            "has a row too: what is predicted for it is FP."
        )
        unmasked = _counts(prediction, labels.where(labels != VOID, 0), ways)
        hint = (
            "void was counted: leave out every pixel whose label is 255, whatever is predicted there"
            if found == unmasked
            else "the ways are pooled: a pixel of way 2 predicted as way 1 is FP of way 1 and FN of way 2"
            if found == [_binary_counts(prediction, labels)] * ways
            else "compare the masks prediction == n and labels == n, both restricted to labels != 255"
        )
        raise AssertionError(f"{ways} ways: expected (TP, FP, FN) {expected}, found {found}. Hint: {hint}.")
    print("passed: counts_per_way agrees with FewShotMeter on 20 random maps of 1 to 3 ways, void and absent ways too")


def check_miou(your_function: Callable[[Sequence[tuple[int, int, int, int]]], float]) -> None:
    """`your_function(rows)` makes the field's mIoU of rows (class, TP, FP, FN), one an episode.

    Raises AssertionError naming the other average that the answer is: per episode, or over all classes pooled.
    """
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        rows = [(int(c), *map(int, counts)) for c, counts in _random_counts(generator)]
        found, expected = float(your_function(list(rows))), _miou(rows)
        if abs(found - expected) < 1e-9:
            continue
        one_bin = _miou([(0, *counts) for _, *counts in rows])
        hint = (
            "this is the mean over episodes; add up the counts of a class first, divide once per class"
            if abs(found - _miou([(number, *counts) for number, (_, *counts) in enumerate(rows)])) < 1e-9
            else "all classes are in one bin; each class has its own sums, and all classes weigh the same"
            if abs(found - one_bin) < 1e-9
            else "IoU of a class is TP / (TP + FP + FN), summed over its episodes; the mean is over the classes met"
        )
        raise AssertionError(f"expected {expected:.6f}, found {found:.6f} for the rows {rows}. Hint: {hint}.")
    print("passed: miou agrees with the field's definition on 20 random lists of episodes")


def check_find_leaks(your_function: Callable[[Sequence[EpisodeRow], set[int], set[str]], Sequence[int]]) -> None:
    """`your_function(rows, train_classes, train_images)` returns the numbers of the episodes that leak.

    An episode leaks when one of its classes was trained on, or one of its images (query or support) was a training
    image. Raises AssertionError naming the kind of leak that was missed, or the clean episode that was accused.
    """
    trained, seen = {1006, 1007, 1008}, {"c1006-000001", "c1002-000009"}
    rows = [
        EpisodeRow("c1001-000010", (1001,), (("c1001-000011",),)),
        EpisodeRow("c1007-000012", (1007,), (("c1007-000013",),)),
        EpisodeRow("c1001-000014", (1001, 1008), (("c1001-000015",), ("c1008-000016",))),
        EpisodeRow("c1002-000009", (1002,), (("c1002-000017",),)),
        EpisodeRow("c1002-000018", (1002,), (("c1002-000019", "c1002-000009"),)),
        EpisodeRow("c1003-000020", (1003, 1002), (("c1003-000021",), ("c1002-000009",))),
        EpisodeRow("c1004-000022", (1004, 1005), (("c1004-000023",), ("c1005-000024",))),
    ]
    kinds = {
        1: "its class was trained on",
        2: "its second way was trained on",
        3: "its query was a training image",
        4: "its second support was a training image",
        5: "a support of its second way was a training image",
    }
    # Shuffled too, so that an answer cannot have learnt the places.
    for order in (range(len(rows)), (6, 3, 5, 0, 2, 4, 1)):
        asked = [rows[number] for number in order]
        found = sorted(your_function(asked, set(trained), set(seen)))
        for place, number in enumerate(order):
            leaks, said = number in kinds, place in found
            assert said or not leaks, f"{asked[place]} leaks: {kinds.get(number)}. It was not found."
            assert leaks or not said, f"{asked[place]} is clean: neither its classes nor its images were trained on."
        assert len(found) == len(kinds), f"every leaking episode is to be named once; found {found}."
    print("passed: find_leaks finds all five kinds of leak and accuses no clean episode")


def check_flattering_scores(your_function: Callable[[float], Sequence[float]]) -> None:
    """`your_function(share)` gives the FB-IoU of predicting nothing and of predicting everything, in this order.

    `share` is the part of the pixels that is foreground. Raises AssertionError with a hint.
    """
    for pixels in (1, 8, 20, 50, 99):
        labels = torch.zeros(1, 10, 10, dtype=torch.int64)
        labels.view(-1)[:pixels] = 1
        expected = []
        for answer in (0, 1):
            meter = FewShotMeter([0])
            meter.update(torch.full_like(labels, answer), labels, torch.tensor([[0]]))
            expected.append(meter.compute().fb_iou)
        found = [float(value) for value in your_function(pixels / 100)]
        assert len(found) == 2, f"two numbers are asked for: nothing predicted, everything predicted; found {found}."
        hint = "who predicts nothing has no TP, and misses only the foreground: background IoU is TN / (TN + FN)"
        if max(abs(a - b) for a, b in zip(found, reversed(expected))) < 1e-9:
            hint = "the two are in the other order: first nothing predicted, then everything"
        assert max(abs(a - b) for a, b in zip(found, expected)) < 1e-9, (
            f"share {pixels / 100:.2f}: expected {expected[0]:.4f} and {expected[1]:.4f}, found {found[0]:.4f} and "
            f"{found[1]:.4f}. Hint: {hint}."
        )
    print("passed: flattering_scores agrees with FewShotMeter for five foreground shares")


def _counts(prediction: Tensor, labels: Tensor, ways: int) -> list[tuple[int, int, int]]:
    meter = FewShotMeter(range(1, ways + 1))
    meter.update(prediction[None], labels[None], torch.arange(1, ways + 1)[None])
    return [tuple(row) for row in meter.ways[:, 2:].tolist()]


def _binary_counts(prediction: Tensor, labels: Tensor) -> tuple[int, int, int]:
    return _counts((prediction > 0).long(), labels.where(labels == VOID, (labels > 0).long()), 1)[0]


def _random_counts(generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    """Three classes, one of them met once, with episodes of very different sizes."""
    classes = torch.tensor([1001, *(1002 + torch.randint(0, 2, (7,), generator=generator)).tolist()])
    counts = (10 ** (3 * torch.rand(8, 3, generator=generator))).long()
    return list(zip(classes, counts))


def _miou(rows: Sequence[tuple[int, int, int, int]]) -> float:
    """The oracle, in plain Python."""
    sums: dict[int, list[int]] = {}
    for c, *counts in rows:
        sums[c] = [a + b for a, b in zip(sums.get(c, (0, 0, 0)), counts)]
    return sum(tp / (tp + fp + fn) for tp, fp, fn in sums.values()) / len(sums)

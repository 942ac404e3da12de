"""Notebook 85: pictures brought upright, what a single mask is worth."""

from collections.abc import Iterable

import torch
from torch import Tensor

from fsslib.teaching.exercises import Exercise, Parts


@Exercise(
    lambda: [(f"orientation {n}", torch.arange(1, 13).view(3, 4), n) for n in range(1, 9)],
    "turns all eight orientations as viewers do",
    "medium",
    10,
)
def upright(stored, orientation):
    """(stored [H, W], orientation 1 to 8) -> upright, [H, W] or [W, H], by EXIF's Orientation"""

    def turned(n, transposed=orientation >= 5):
        axes = [axis for axis, flipped in enumerate(((3, 4, 7, 8), (2, 3, 6, 7))) if n in flipped]
        return (stored.T if transposed else stored).flip(axes)

    right, to_the_other = turned(orientation), turned({6: 8, 8: 6}.get(orientation, orientation))
    return {
        "right": right,
        "the stored picture came back as it was.": stored,
        "this is the turn to the other side: 6 needs a quarter turn clockwise, 8 one the other way.": to_the_other,
        "rows become columns from 5 on: transpose first.": turned(orientation, False),
        "it is a mirror image of what viewers show, left and right swapped.": right.flip(1),
        "it is a mirror image of what viewers show, top and bottom swapped.": right.flip(0),
        "it stands on its head: half a turn is missing.": right.flip(0, 1),
    }


class Watched:
    """Answers for pairs of pictures, and for each picture which ones were shown alone when it was asked for; in the
    last column, whether it was asked for with several shown or none."""

    def __init__(self, answers: Tensor):
        self.answers, self.shown = answers, torch.zeros(len(answers), len(answers) + 1)

    def __call__(self, shown: Iterable[int], asked: int) -> Tensor:
        shown, asked = [int(k) for k in shown], int(asked)
        self.shown[asked, shown[0] if len(shown) == 1 else -1] = 1
        return self.answers[shown[-1] if shown else asked, asked]


def supports():
    for shots in (2, 3, 5):
        generator = torch.Generator().manual_seed(shots)
        # Objects of very different sizes, so that a mean over pixels is not the mean over pictures.
        rows = torch.tensor([2, 9, 4, 12, 6])[:shots, None, None]
        masks = (torch.arange(16)[None, :, None] < rows).expand(-1, -1, 12).long()
        noise = torch.rand(shots, *masks.shape, generator=generator)
        answers = (masks + (noise < 0.1 * (1 + torch.arange(shots))[:, None, None, None])) % 2
        yield f"{shots} supports", Watched(answers), masks


def who_was_shown(function):
    def seen(answer, masks):
        found = function(answer, masks)
        return Parts({f"picture {k}": row for k, row in enumerate(answer.shown)} | {"": found})

    return seen


@Exercise(
    supports,
    "asks for each of 2, 3 and 5 supports with each of the others shown alone, and averages their IoU",
    "medium",
    15,
    hint="show each of the others alone for each picture, and take the mean of the IoU of all pairs",
    seen=who_was_shown,
)
def one_shot_iou(answer, masks):
    """(answer(numbers shown, number asked) -> [H, W], masks [K, H, W]) -> mean IoU over pairs, the other one shown"""
    everybody = range(len(masks))

    def others(asked):
        return [k for k in everybody if k != asked]

    def score(over="both", below="union", total=torch.mean, shown=lambda asked: [[k] for k in others(asked)]):
        """Of the pixels of each pair the quotient of two numbers, then the mean."""
        pairs = [(answer(these, asked), masks[asked]) for asked in everybody for these in shown(asked)]
        found, truth = (torch.stack(maps) for maps in zip(*pairs))
        maps = (found & truth, found | truth, found, truth, found == truth, torch.ones_like(truth))
        sums = zip(("both", "union", "answer", "mask", "right", "all"), (one.sum((1, 2)).double() for one in maps))
        count = dict(sums) | {"areas": (found + truth).sum((1, 2)) / 2}
        return total(count[over] / count[below]) if total else count[over].sum() / count[below].sum()

    return {
        "right": score,
        "a picture was shown when it was asked for itself.": lambda: score(shown=lambda _: [[k] for k in everybody]),
        "several were shown at once; show one at a time.": lambda: score(shown=lambda asked: [others(asked)]),
        "you showed nothing; show one other.": lambda: score(shown=lambda asked: [[]]),
        "half of the pairs are missing.": lambda: score(shown=lambda asked: [[k] for k in range(asked)]),
        "this is the IoU of all pixels together; take each pair's own IoU, then their mean.": lambda: score(total=None),
        "this is the best pair; nobody knows it beforehand. Take the mean.": lambda: score(total=torch.amax),
        "this is Dice, both over the mean of both areas; divide by the union.": lambda: score(below="areas"),
        "this is the share of the mask that is found; divide by the union.": lambda: score(below="mask"),
        "this is the share of the answer that is right; divide by the union.": lambda: score(below="answer"),
        "this is the share of right pixels; background must not count.": lambda: score("right", "all"),
        "this is a sum; divide by the number of pairs.": lambda: score(total=torch.sum),
    }

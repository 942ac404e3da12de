"""Notebook 85: pictures brought upright, leaving one mask out."""

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
    """Answers by number, and for each picture who was shown when it was asked for; -1 where it never was."""

    def __init__(self, answers: Tensor):
        self.answers, self.shown = answers, torch.full((len(answers), len(answers)), -1)

    def __call__(self, shown: Iterable[int], asked: int) -> Tensor:
        self.shown[int(asked)] = 0
        self.shown[int(asked), [int(k) for k in shown]] = 1
        return self.answers[int(asked)]


def supports():
    for shots in (2, 3, 5):
        generator = torch.Generator().manual_seed(shots)
        # Objects of very different sizes, so that a mean over pixels is not the mean over pictures.
        rows = torch.tensor([2, 9, 4, 12, 6])[:shots, None, None]
        masks = (torch.arange(16)[None, :, None] < rows).expand(-1, -1, 12).long()
        yield f"{shots} supports", Watched((masks + (torch.rand(masks.shape, generator=generator) < 0.3)) % 2), masks


def who_was_shown(function):
    def seen(answer, masks):
        found = function(answer, masks)
        return Parts({f"picture {k}": row for k, row in enumerate(answer.shown)} | {"": found})

    return seen


@Exercise(
    supports,
    "asks for each of 2, 3 and 5 supports with only the others shown, and averages their IoU",
    "easy",
    10,
    hint="show all others for each picture, and take the mean of the IoU of each",
    seen=who_was_shown,
)
def leave_one_out(answer, masks):
    """(answer(numbers shown, number asked) -> [H, W], masks [K, H, W]) -> mean IoU, no mask asked for while shown"""
    everybody = range(len(masks))

    def score(over="both", below="union", total=torch.mean, shown=lambda asked: [k for k in everybody if k != asked]):
        """Of the pixels of each picture the quotient of two numbers, then the mean."""
        found = torch.stack([answer(shown(k), k) for k in everybody])
        maps = (found & masks, found | masks, found, masks, found == masks, torch.ones_like(masks))
        sums = zip(("both", "union", "answer", "mask", "right", "all"), (one.sum((1, 2)).double() for one in maps))
        count = dict(sums) | {"areas": (found + masks).sum((1, 2)) / 2}
        return total(count[over] / count[below]) if total else count[over].sum() / count[below].sum()

    return {
        "right": score,
        "it was shown when it was asked for. Leave it out of `shown`.": lambda: score(shown=lambda k: everybody),
        "you showed nothing; show all others.": lambda: score(shown=lambda k: []),
        "you showed those before it only; show all others.": lambda: score(shown=range),
        "it was never asked for.": lambda: (answer(everybody[1:], 0) == masks[0]).double().mean(),
        "this is the IoU of all pixels together; take each picture's own IoU, then their mean.": lambda: score(
            total=None
        ),
        "this is Dice, both over the mean of both areas; divide by the union.": lambda: score(below="areas"),
        "this is the share of the mask that is found; divide by the union of mask and answer.": lambda: score(
            below="mask"
        ),
        "this is the share of the answer that is right; divide by the union of mask and answer.": lambda: score(
            below="answer"
        ),
        "this is the share of pixels that are answered rightly; background must not count.": lambda: score(
            "right", "all"
        ),
        "this is a sum; divide by the number of supports.": lambda: score(total=torch.sum),
    }

"""Checkers of notebook 85: each takes the reader's function, compares it with an oracle and says what to look at."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fsslib.data.folder import TURNS

__all__ = ["check_leave_one_out", "check_upright"]


def check_upright(your_function: Callable[[Tensor, int], Tensor]) -> None:
    """Check `your_function(stored [H, W], orientation 1 to 8) -> upright`, [H, W] or [W, H], by EXIF's Orientation.

    Prints one line when the function is right. Raises AssertionError with a hint when it is not.
    """
    stored = torch.arange(1, 13).view(3, 4)
    inverse = {6: 8, 8: 6}
    for orientation in range(1, 9):
        found = your_function(stored.clone(), orientation)
        case = f"orientation {orientation}"
        if not isinstance(found, Tensor):
            raise AssertionError(
                f"{case}: your function returned {type(found).__name__}, not a tensor. Is a return missing?"
            )
        expected = _turned(stored, orientation)
        if torch.equal(found, expected):
            continue
        slips = {
            "the stored picture came back as it was.": stored,
            "this is the turn to the other side: 6 needs a quarter turn clockwise, 8 one the other way.": _turned(
                stored, inverse.get(orientation, 1)
            ),
            "it is a mirror image of what viewers show, left and right swapped.": expected.flip(1),
            "it is a mirror image of what viewers show, top and bottom swapped.": expected.flip(0),
            "it stands on its head: half a turn is missing.": expected.flip(0, 1),
        }
        hint = next((hint for hint, slip in slips.items() if torch.equal(found, slip)), None)
        raise AssertionError(
            f"{case}: "
            + (hint or f"the first row is {found.flatten()[: expected.shape[1]].tolist()}, not {expected[0].tolist()}.")
        )
    print("passed: upright turns all eight orientations as viewers do")


def check_leave_one_out(your_function: Callable[[Callable[[Sequence[int], int], Tensor], Tensor], float]) -> None:
    """Check `your_function(answer, masks [K, H, W] of 0 and 1) -> mean IoU`, in which no mask is asked for while shown.

    `answer(shown, asked)` is given a list of numbers of supports and one more, and says where the object is: [H, W].
    Prints one line when the function is right. Raises AssertionError with a hint when it is not.
    """
    for shots in (2, 3, 5):
        generator = torch.Generator().manual_seed(shots)
        # Objects of very different sizes, so that a mean over pixels is not the mean over pictures.
        rows = torch.tensor([2, 9, 4, 12, 6])[:shots, None, None]
        masks = (torch.arange(16)[None, :, None] < rows).expand(-1, -1, 12).long()
        answers = (masks + (torch.rand(shots, 16, 12, generator=generator) < 0.3)).remainder(2)
        asked_for: list[tuple[list[int], int]] = []

        def answer(shown: Sequence[int], asked: int, answers=answers, asked_for=asked_for) -> Tensor:
            asked_for.append((sorted(map(int, shown)), int(asked)))
            return answers[int(asked)]

        found = float(your_function(answer, masks))
        case = f"{shots} supports"
        for shown, asked in asked_for:
            if asked in shown:
                raise AssertionError(
                    f"{case}: picture {asked} was shown when it was asked for. Leave it out of `shown`."
                )
            others = [k for k in range(shots) if k != asked]
            if shown != others:
                raise AssertionError(f"{case}: for picture {asked} you showed {shown}; show all others, {others}.")
        if missing := sorted(set(range(shots)) - {asked for _, asked in asked_for}):
            raise AssertionError(f"{case}: picture {missing[0]} was never asked for.")
        both, either = (answers & masks).sum((1, 2)), (answers | masks).sum((1, 2))
        expected = (both / either).mean().item()
        if abs(found - expected) < 1e-4:
            continue
        slips = {
            "this is the IoU of all pixels together; take each picture's own IoU, then their mean.": both.sum()
            / either.sum(),
            "this is the share of the mask that is found; divide by the union of mask and answer.": (
                both / masks.sum((1, 2))
            ).mean(),
            "this is the share of the answer that is right; divide by the union of mask and answer.": (
                both / answers.sum((1, 2))
            ).mean(),
            "this is the share of pixels that are answered rightly; background must not count.": (
                (answers == masks).double().mean()
            ),
            "this is a sum; divide by the number of supports.": (both / either).sum(),
        }
        hint = next((hint for hint, slip in slips.items() if abs(found - slip.item()) < 1e-4), None)
        raise AssertionError(f"{case}: " + (hint or f"the mean IoU is {expected:.4f}; your function says {found:.4f}."))
    print(
        "passed: leave_one_out asks for each of 2, 3 and 5 supports with only the others shown, and averages their IoU"
    )


def _turned(stored: Tensor, orientation: int) -> Tensor:
    """What a viewer shows of a stored picture."""
    if orientation == 1:
        return stored
    image = Image.fromarray(stored.numpy().astype(np.uint8)).transpose(TURNS[orientation])
    return torch.from_numpy(np.array(image)).to(stored.dtype)

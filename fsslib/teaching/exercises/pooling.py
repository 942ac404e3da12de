"""Checkers of notebook 10: each takes the reader's function, compares it with the library and says what to look at.

A checker also computes the answers that are typically wrong, so that it can name the slip instead of the difference.
"""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from fsslib.blocks.pooling import background_mask, masked_average_pooling, merge_shots
from fsslib.episodes import VOID

__all__ = ["check_background_prototype", "check_masked_average_pooling", "check_upsampling_matrix", "check_vote"]

_TOLERANCE = {"rtol": 1e-3, "atol": 1e-4}
"""Loose enough for another eps in the denominator."""


def check_masked_average_pooling(your_function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Check `your_function(features [B, C, h, w], mask [B, H, W]) -> prototypes [B, C]`, which upsamples the features.

    Prints one line when the function is right. Raises AssertionError with a hint when it is not.
    """
    golden = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[0.0, 1.0], [0.0, 1.0]]]])
    diagonal = torch.tensor([[[1, 0], [0, 1]]])
    features, mask = _features_and_mask()
    empty = mask.clone()
    empty[1] = 0
    cases = {
        "the 2x2 map": (golden, diagonal),
        "one small image": (features[:1], (mask[:1] == 1).long()),
        "a batch": (features, (mask == 1).long()),
        "a mask with void": (features, mask),
        "an empty mask in the batch": (features, empty),
    }
    for case, (f, m) in cases.items():
        _agree(case, your_function(f, m), masked_average_pooling(f, m), _pooling_slips(f, m))
    print(f"passed: masked_average_pooling agrees with the library on {', '.join(cases)}")


def check_background_prototype(your_function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Check `your_function(features [B, C, h, w], mask [B, H, W]) -> background prototypes [B, C]` on masks with void.

    Prints one line when the function is right. Raises AssertionError with a hint when it is not.
    """
    features, mask = _features_and_mask()
    full = torch.ones_like(mask)
    for case, m in {"a mask with void": mask, "a mask without background": full}.items():
        slips = {
            "this is the foreground's prototype; the background is where the mask is 0.": _pool(features, m == 1),
            "void (255) counts as background here: `mask != 1` takes it in, `mask == 0` does not.": _pool(
                features, m != 1
            ),
            "the weight of void pixels is 1 - 255 = -254: make a mask of 0 and 1 first.": _pool(features, 1 - m),
            "this is the mean over the whole image: the mask is not used.": _pool(features, torch.ones_like(m)),
        }
        _agree(case, your_function(features, m), masked_average_pooling(features, background_mask(m)), slips)
    print("passed: background_prototype takes in neither object nor void, and gives zeros without background")


def check_upsampling_matrix(your_function: Callable[[int, int], Tensor]) -> None:
    """Check `your_function(cells, pixels) -> matrix [pixels, cells]` that interpolates linearly, `align_corners=False`.

    Prints one line when the function is right. Raises AssertionError with a hint when it is not.
    """
    sizes = [(2, 4), (4, 4), (3, 12), (5, 13), (1, 6)]
    for cells, pixels in sizes:
        expected = _upsampling(cells, pixels, mode="linear", align_corners=False)
        at = (torch.arange(pixels) + 0.5) * cells / pixels - 0.5
        unclamped = (1 - (at[:, None] - torch.arange(cells)).abs()).clamp(min=0)
        slips = {
            "this is the transposed matrix [cells, pixels]; the rows are pixels.": expected.T,
            "this is align_corners=True: the centre of pixel p lies at (p + 0.5) * cells / pixels - 0.5.": _upsampling(
                cells, pixels, mode="linear", align_corners=True
            ),
            "each pixel copies one cell; a pixel between two cells reads both.": _upsampling(
                cells, pixels, mode="nearest"
            ),
            "rows at the ends add up to less than 1: a pixel beyond the last centre reads that cell alone, so keep "
            "its position within 0 and cells - 1.": unclamped,
        }
        _agree(f"{cells} cells to {pixels} pixels", your_function(cells, pixels), expected, slips)
    asked = ", ".join(f"{cells} to {pixels}" for cells, pixels in sizes)
    print(f"passed: upsampling_matrix agrees with torch on {asked}")


def check_vote(your_function: Callable[[Tensor], Tensor]) -> None:
    """Check HSNet's rule, `your_function(predictions [B, K, H, W] of 0 and 1) -> merged [B, H, W]`.

    Prints one line when the function is right. Raises AssertionError with a hint when it is not.
    """
    generator = torch.Generator().manual_seed(2)
    drawn = (torch.rand(3, 5, 6, 8, generator=generator) < 0.5).long()
    # At most 2, 3 and 4 votes: the largest vote differs between the images, and none is K.
    drawn *= drawn.cumsum(1) <= torch.tensor([2, 3, 4])[:, None, None, None]
    silent = drawn.clone()
    silent[0] = 0
    cases = {
        "golden votes 0 1 3 5 2": _with_votes([0, 1, 3, 5, 2]),
        "golden votes 0 1 2 2 1": _with_votes([0, 1, 2, 2, 1]),
        "one image": drawn[:1],
        "a batch": drawn,
        "an image without votes": silent,
    }
    for case, predictions in cases.items():
        votes, shots = predictions.sum(1), predictions.shape[1]
        most = votes.flatten(1).amax(1)[:, None, None]
        slips = {
            "this is the majority of the K shots; divide by the largest vote in the image instead of K.": (
                2 * votes > shots
            ),
            "a pixel with exactly half of the largest vote is foreground: compare with >=.": 2 * votes > most,
            "the largest vote is taken over the whole batch; take it in each image.": 2 * votes >= votes.max(),
            "this is the union: one vote is only enough where no pixel has more than two.": votes > 0,
            "an image without any vote stays background: keep the largest vote from below by 1.": 2 * votes >= most,
        }
        found = _tensor(case, your_function(predictions))
        _agree(case, found.float(), merge_shots(predictions, rule="vote").float(), slips)
    print(f"passed: vote agrees with the library on {', '.join(cases)}")


def _features_and_mask() -> tuple[Tensor, Tensor]:
    """Three images of unequal objects: features on a 4x5 grid, masks of 16x20 pixels with a band of void."""
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(3, 6, 4, 5, generator=generator) + 1
    mask = torch.zeros(3, 16, 20, dtype=torch.int64)
    for image, (top, left, height, width) in enumerate([(2, 3, 5, 6), (6, 8, 8, 9), (1, 10, 9, 8)]):
        mask[image, top - 1 : top + height + 1, left - 1 : left + width + 1] = VOID
        mask[image, top : top + height, left : left + width] = 1
    return features, mask


def _pool(features: Tensor, weights: Tensor, count: float | Tensor | None = None, **resize) -> Tensor:
    """Features brought up to the size of the weights, weighed and summed, over the weights' sum or over `count`."""
    resize = resize or {"mode": "bilinear", "align_corners": False}
    total = torch.einsum("bchw,bhw->bc", F.interpolate(features, weights.shape[-2:], **resize), weights.float())
    return total / (weights.float().sum((1, 2))[:, None] + 1e-5 if count is None else count)


def _pooling_slips(features: Tensor, mask: Tensor) -> Mapping[str, Tensor]:
    """What typical slips give instead of the prototype."""
    marked = (mask == 1).float()
    whole_batch = marked.sum() + 1e-5
    return {
        "the mask is not used: this is the mean over the whole image.": _pool(features, torch.ones_like(mask)),
        "void (255) counts as foreground here: `mask > 0` takes it in, `mask == 1` does not.": _pool(
            features, mask > 0
        ),
        "void pixels weigh 255 each: make a mask of 0 and 1 first.": _pool(features, mask),
        "the sum is divided by all pixels; divide by the masked ones.": _pool(features, marked, mask[0].numel()),
        "the sum is not divided by the number of masked pixels.": _pool(features, marked, 1),
        "the sum is divided by the masked pixels of the whole batch; divide each image by its own.": _pool(
            features, marked, whole_batch
        ),
        "the mask was brought down to the grid; here the features go up to the mask's size.": masked_average_pooling(
            features, mask, resize="mask"
        ),
        "this is upsampling with align_corners=True; use False.": _pool(
            features, marked, mode="bilinear", align_corners=True
        ),
        "this is nearest-neighbour upsampling; use bilinear.": _pool(features, marked, mode="nearest"),
    }


def _upsampling(cells: int, pixels: int, **options) -> Tensor:
    """The matrix [pixels, cells] that torch's interpolation multiplies with."""
    return F.interpolate(torch.eye(cells)[None], pixels, **options)[0].T


def _with_votes(votes: list[int], shots: int = 5) -> Tensor:
    """Predictions [1, K, 1, W] in which pixel x has `votes[x]` votes."""
    return (torch.arange(shots)[:, None] < torch.tensor(votes)).long()[None, :, None]


def _tensor(case: str, found: object) -> Tensor:
    if not isinstance(found, Tensor):
        raise AssertionError(
            f"{case}: your function returned {type(found).__name__}, not a tensor. Is a return missing?"
        )
    return found


def _agree(case: str, found: object, expected: Tensor, slips: Mapping[str, Tensor]) -> None:
    """Raise AssertionError unless `found` is `expected`, with the hint of the slip that gives `found`, if one does."""
    found = _tensor(case, found)

    def same(other: Tensor) -> bool:
        return found.shape == other.shape and torch.allclose(found.to(other), other, **_TOLERANCE)

    if same(expected):
        return
    for hint, wrong in slips.items():
        if same(wrong.to(expected)):
            raise AssertionError(f"{case}: {hint}")
    if found.shape != expected.shape:
        raise AssertionError(f"{case}: the shape is {tuple(found.shape)}; expected {tuple(expected.shape)}.")
    if not torch.isfinite(found).all():
        raise AssertionError(f"{case}: {found.isnan().sum()} values are NaN (0 / 0?). Keep the denominator above zero.")
    wrong = ~torch.isclose(found.to(expected), expected, **_TOLERANCE)
    worst = (found.to(expected) - expected).abs().argmax()
    raise AssertionError(
        f"{case}: {wrong.sum()} of {found.numel()} values differ; the worst is {found.flatten()[worst].item():.4f} "
        f"instead of {expected.flatten()[worst].item():.4f}."
    )

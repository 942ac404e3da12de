"""Masked average pooling: one vector for what a mask marks, and the rules that merge several shots or ways.

Derived in notebook 10.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from fsslib.episodes import VOID

ShotRule = Literal["mean", "union", "vote", "majority"]


def masked_average_pooling(
    features: Float[Tensor, "B C h w"],
    mask: Int[Tensor, "B H W"],
    *,
    resize: Literal["features", "mask"] = "features",
    eps: float = 1e-5,
    align_corners: bool = False,
) -> Float[Tensor, "B C"]:
    """The mean feature of the pixels that `mask` marks with 1: v = sum_xy Y(x,y) F(x,y) / (sum_xy Y(x,y) + eps).

    As in SG-One. `mask` holds 0, 1 and 255 (void): void pixels are left out of both sums. Two families are in use and
    differ near borders and for small objects: `resize="features"` brings the features up to the mask's size (SG-One,
    PANet), `resize="mask"` brings the mask down to the feature grid (PFENet, HSNet and most later code). Both bilinear.

    An empty mask gives zeros, not NaN, and so does a mask that is lost on the way down to the grid. For the background
    pool `background_mask(mask)`, so that void is in neither foreground nor background. Sums run in float32 at least,
    under autocast too.

    Differs from the released SG-One, which divides by the mask's sum over the whole batch without eps: right for one
    image, wrong in scale for more, NaN where the whole batch is empty. And no feature map is ever upsampled here, see
    `grid_weights`; the result is the same.
    """
    precise = torch.promote_types(features.dtype, torch.float32)
    with without_autocast(features.device):
        weights = grid_weights(mask, features.shape[-2:], resize=resize, align_corners=align_corners, dtype=precise)
        total = torch.einsum("bchw,bhw->bc", features.to(precise), weights)
        return (total / (weights.sum((1, 2))[:, None] + eps)).to(features.dtype)


def grid_weights(
    mask: Int[Tensor, "B H W"],
    grid: tuple[int, int],
    *,
    resize: Literal["features", "mask"] = "features",
    align_corners: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "B h w"]:
    """How much each cell of the feature grid counts in masked average pooling.

    Upsampling is linear, so pooling upsampled features with a mask equals pooling the features as they are with the
    *transposed* upsampling of the mask: sum_xy Y (U F) = sum_hw (U^T Y) F. For `resize="features"` the weights are
    that U^T Y = U_h^T Y U_w: every masked pixel spreads its one vote over the cells it would have read, so that the
    weights add up to the number of masked pixels. For `resize="mask"` they are the mask read off at the grid's points:
    pixels between the points are never looked at, and a small object can vanish.
    """
    marked = (mask == 1).to(dtype)
    if resize == "mask":
        return F.interpolate(marked[:, None], grid, mode="bilinear", align_corners=align_corners)[:, 0]
    if resize != "features":
        raise ValueError(f'resize is "features" or "mask"; found {resize!r}.')

    def transposed_upsampling(cells: int, pixels: int) -> Float[Tensor, "cells pixels"]:
        unit = torch.eye(cells, dtype=dtype, device=mask.device)[None]
        return F.interpolate(unit, pixels, mode="linear", align_corners=align_corners)[0]

    down, across = (transposed_upsampling(*sizes) for sizes in zip(grid, mask.shape[-2:]))
    with without_autocast(mask.device):
        return down @ marked @ across.T


def without_autocast(device: torch.device) -> AbstractContextManager:
    """Matrix products in the dtype they are given. The meta device, for trying out shapes, has no autocast to leave."""
    known = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if known else nullcontext()


def background_mask(mask: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """The mask of what is not foreground: 0 and 1 change places, void stays void."""
    return torch.where(mask == VOID, VOID, 1 - mask)


def merge_shots(per_shot: Tensor, *, rule: ShotRule = "mean") -> Tensor:
    """Merge K shots along axis 1 by a rule of the literature; all of them are called "K-shot", so name yours.

    - "mean" of prototypes [B, K, C] -> [B, C], or of score maps: PANet, SG-One `avg`, PFENet.
    - "union" of binary predictions [B, K, H, W] -> [B, H, W]: foreground where any shot says so (SG-One `max`).
    - "vote": votes divided by the largest vote *in that image*, foreground from one half on (HSNet, PATNet). Where no
      pixel has more than two votes a single one passes. An image without votes stays background.
    - "majority": foreground where more than half of the shots say so.
    """
    if rule == "mean":
        return per_shot.mean(1)
    if rule not in ("union", "vote", "majority"):
        raise ValueError(f'Unknown rule {rule!r}; there are "mean", "union", "vote", "majority".')
    if per_shot.is_floating_point():
        raise ValueError(f'rule="{rule}" merges binary predictions, integers 0 and 1; found {per_shot.dtype}.')
    votes = per_shot.long().sum(1)
    if rule == "union":
        return (votes > 0).long()
    if rule == "majority":
        return (2 * votes > per_shot.shape[1]).long()
    most = votes.flatten(1).amax(1).clamp(min=1)[:, None, None]
    return (2 * votes >= most).long()

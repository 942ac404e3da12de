"""HSNet's correlation and learner as the released code runs them: every 4D tensor whole, every view of it copied.

The oracle of tests and the baseline of `make bench`.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fsslib.blocks.correlation import CentrePivotBlock
from fsslib.methods.hsnet import Learner


def correlation(query: Tensor, support: Tensor) -> Tensor:
    """Unit features [B, L, C, h, w] of both -> [B, L, hq, wq, hs, ws], layer by layer, stacked."""
    layers = [
        torch.bmm(q.flatten(2).transpose(1, 2), s.flatten(2)).clamp(min=0)
        for q, s in zip(query.unbind(1), support.unbind(1))
    ]
    return torch.stack(layers, 1).unflatten(3, support.shape[-2:]).unflatten(2, query.shape[-2:])


def convolution(x: Tensor, block: CentrePivotBlock) -> Tensor:
    """Each half a 2D convolution of a copy that has its images one behind the other."""
    batch, channels, hq, wq, hs, ws = x.shape
    stride, padding = block.stride, block.query.kernel_size[0] // 2
    sampled = x[..., ::stride, ::stride]
    images = sampled.permute(0, 4, 5, 1, 2, 3).reshape(-1, channels, hq, wq)
    over_query = F.conv2d(images, block.query.weight, block.query.bias, padding=padding)
    over_query = over_query.view(batch, *sampled.shape[-2:], -1, hq, wq).permute(0, 3, 4, 5, 1, 2).contiguous()
    images = x.permute(0, 2, 3, 1, 4, 5).reshape(-1, channels, hs, ws)
    over_support = F.conv2d(images, block.support.weight, block.support.bias, stride, padding)
    over_support = over_support.view(batch, hq, wq, *over_support.shape[1:]).permute(0, 3, 1, 2, 4, 5).contiguous()
    return over_query + over_support


def squeeze(x: Tensor, blocks: Sequence[CentrePivotBlock]) -> Tensor:
    for block in blocks:
        x = F.relu(block.norm(convolution(x, block)), inplace=True)
    return x


def resize_query(x: Tensor, size: tuple[int, int]) -> Tensor:
    batch, channels, hq, wq, hs, ws = x.shape
    images = x.permute(0, 4, 5, 1, 2, 3).reshape(-1, channels, hq, wq)
    resized = F.interpolate(images, size, mode="bilinear", align_corners=True)
    return resized.view(batch, hs, ws, channels, *size).permute(0, 3, 4, 5, 1, 2).contiguous()


def answer(learner: Learner, query: Sequence[Tensor], support: Sequence[Tensor]) -> Tensor:
    """The learner's answer, from correlations that are all made before the first of them is squeezed."""
    correlations = [correlation(q, s) for q, s in zip(query, support)]
    squeezed = [squeeze(x, blocks) for x, blocks in zip(correlations, learner.encoders)]
    merged = squeezed[0]
    for finer, blocks in zip(squeezed[1:], learner.mixers):
        merged = squeeze(resize_query(merged, finer.shape[2:4]) + finer, blocks)
    return learner.decoder(merged.flatten(4).mean(-1))

"""HSNet as the released code computes it: every feature copied, every 4D tensor whole, every view of it copied.

The oracle of tests and the baseline of `make bench`.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fsslib.blocks.correlation import CentrePivotBlock
from fsslib.episodes import Episode
from fsslib.methods.hsnet import HSNet, Learner


def pyramid(method: HSNet, images: Tensor, masks: Tensor | None = None) -> list[list[Tensor]]:
    """A bottleneck ResNet's unit features in lists of layers [B, C, h, w], coarsest level first."""
    backbone, levels = method.backbone, []
    x = (images - backbone.mean) / backbone.std
    for name, stage in backbone.network.named_children():
        if not name.startswith("layer"):
            x = stage(x)
            continue
        found = []
        for block in stage:
            inside = F.relu(block.bn1(block.conv1(x)), inplace=True)
            inside = F.relu(block.bn2(block.conv2(inside)), inplace=True)
            inside = block.bn3(block.conv3(inside))
            inside += x if block.downsample is None else block.downsample(x)
            found.append(inside.clone())
            x = F.relu(inside, inplace=True)
        if name in backbone.stages:
            levels.insert(0, found)
    if masks is not None:
        marked = (masks == 1).float()[:, None]
        of_grid = [F.interpolate(marked, found[0].shape[2:], mode="bilinear", align_corners=True) for found in levels]
        levels = [[x * mask for x in found] for found, mask in zip(levels, of_grid)]
    return [[x / (x.norm(dim=1, keepdim=True) + 1e-5) for x in found] for found in levels]


def correlation(query: Sequence[Tensor], support: Sequence[Tensor]) -> Tensor:
    """Unit features [B, C, h, w] of L layers of both -> [B, L, hq, wq, hs, ws], layer by layer, stacked."""
    layers = [
        torch.bmm(q.flatten(2).transpose(1, 2), s.flatten(2)).clamp(min=0) for q, s in zip(query, support, strict=True)
    ]
    return torch.stack(layers, 1).unflatten(3, support[0].shape[2:]).unflatten(2, query[0].shape[2:])


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


def answer(learner: Learner, query: Sequence[Sequence[Tensor]], support: Sequence[Sequence[Tensor]]) -> Tensor:
    """The learner's answer, from correlations that are all made before the first of them is squeezed."""
    correlations = [correlation(q, s) for q, s in zip(query, support)]
    squeezed = [squeeze(x, blocks) for x, blocks in zip(correlations, learner.encoders)]
    merged = squeezed[0]
    for finer, blocks in zip(squeezed[1:], learner.mixers):
        merged = squeeze(resize_query(merged, finer.shape[2:4]) + finer, blocks)
    return learner.decoder(merged.flatten(4).mean(-1))


def logits(method: HSNet, episode: Episode) -> Tensor:
    """Of 1-way 1-shot episodes [B, 2, H, W]; only the learner's parameters take gradients."""
    with torch.no_grad():
        support = pyramid(method, episode.support_images[:, 0, 0], episode.support_masks[:, 0, 0])
        query = pyramid(method, episode.query_images)
    size = episode.query_images.shape[-2:]
    return F.interpolate(answer(method.learner, query, support), size, mode="bilinear", align_corners=True)

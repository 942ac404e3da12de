"""Hypercorrelation: how alike every place of the query is to every place of the support, in many layers at once, and
the centre-pivot convolution that squeezes these four-dimensional tensors.

Min, Kang, Cho, "Hypercorrelation Squeeze for Few-Shot Segmentation", ICCV 2021 (HSNet).

A 4D tensor is [B, C, hq, wq, hs, ws] throughout, the query's places first, then the support's. ResNet-50's largest has
25 million numbers for one pair of images of 400 pixels, so `CentrePivotBlock.correlate` never holds it as a whole.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from fsslib.blocks.backbones import Backbone
from fsslib.blocks.pooling import grid_weights

_SUPPORT_FIRST = (0, 1, 4, 5, 2, 3)
"""[B, C, hq, wq, hs, ws] -> [B, C, hs, ws, hq, wq] and back again."""

LARGEST_PIECE = 2**22
"""About how many correlations a processor holds at once where they need not all be: 16 MB of float32."""


def largest_piece(device: torch.device) -> int:
    """LARGEST_PIECE; on a GPU, which small pieces leave idle, 64 times as much: 1 GB of float32."""
    return LARGEST_PIECE * (64 if device.type == "cuda" else 1)


def feature_pyramid(backbone: Backbone, images: Float[Tensor, "B 3 H W"]) -> list[Float[Tensor, "B _ _ _ _"]]:
    """What enters the activation functions of the backbone's wanted stages: one level [B, L, C, h, w] a stage, coarsest
    first.

    Of a ResNet the sum that each block ends in, of VGG16 each convolution's output, of tiny each batch norm's: values
    of both signs, L of them in a level, from the first layer to the last. VGG16's last pool is a level of its own, the
    coarsest. A stage without an activation function gives its output.
    """
    features, levels = (images - backbone.mean) / backbone.std, []
    for name, stage in backbone.network.named_children():
        found = []
        for module in stage if isinstance(stage, nn.Sequential) else [stage]:
            if hasattr(module, "downsample"):
                features = _residual_sum(module, features)
            if hasattr(module, "downsample") or isinstance(module, nn.ReLU):
                found.append(features)
                features = F.relu(features)
            else:
                features = module(features)
        if name in backbone.stages:
            levels.append(torch.stack(found or [features], 1))
    if features.shape[-2:] != levels[-1].shape[-2:]:
        levels.append(features[:, None])
    return levels[::-1]


def _residual_sum(block: nn.Module, features: Float[Tensor, "B C h w"]) -> Float[Tensor, "B D _ _"]:
    """One of torchvision's residual blocks without its last activation function."""
    inside = block.bn2(block.conv2(F.relu(block.bn1(block.conv1(features)))))
    if hasattr(block, "conv3"):
        inside = block.bn3(block.conv3(F.relu(inside)))
    return inside + (features if block.downsample is None else block.downsample(features))


def mask_features(features: Float[Tensor, "B L C h w"], masks: Int[Tensor, "B H W"]) -> Float[Tensor, "B L C h w"]:
    """Features times the mask, read off at the grid's points (bilinear, corners aligned). Void is not the object."""
    return features * grid_weights(masks, features.shape[-2:], resize="mask", align_corners=True)[:, None, None]


def unit_features(features: Float[Tensor, "B L C h w"], *, eps: float = 1e-5) -> Float[Tensor, "B L C h w"]:
    """Each place's feature divided by its length plus `eps`, so that a product of two is their cosine; 0 stays 0."""
    return features / (features.norm(dim=2, keepdim=True) + eps)


def hypercorrelation(
    query: Float[Tensor, "B L C hq wq"], support: Float[Tensor, "B L C hs ws"]
) -> Float[Tensor, "B L hq wq hs ws"]:
    """The cosine of each query place x with each support place y, layer by layer, nothing below 0.

    C_l(x, y) = ReLU(<F_l(x), F_l(y)> / (|F_l(x)| |F_l(y)|)). Takes `unit_features`.
    """
    cosine = torch.einsum("blcq,blcs->blqs", query.flatten(3), support.flatten(3)).relu_()
    return cosine.unflatten(3, support.shape[-2:]).unflatten(2, query.shape[-2:])


def resize_query(x: Float[Tensor, "B C _ _ hs ws"], size: tuple[int, int]) -> Float[Tensor, "B C hq wq hs ws"]:
    """The 4D tensor with another grid of query places, bilinear with corners aligned; support places stay."""
    images = x.permute(_SUPPORT_FIRST)
    resized = F.interpolate(images.flatten(1, 3), size, mode="bilinear", align_corners=True)
    return resized.unflatten(1, images.shape[1:4]).permute(_SUPPORT_FIRST)


class CentrePivotBlock(nn.Module):
    """A centre-pivot convolution, group norm and ReLU: [B, C, hq, wq, hs, ws] to [B, D, hq, wq, hs', ws'].

    The part of a 4D convolution whose kernel touches the centre of the query or that of the support; all other weights
    of the 4D kernel are left out (the paper's section on centre-pivot convolutions). That makes it the sum of two 2D
    convolutions: over the query's places for one support place at a time, and over the support's places for one query
    place at a time. The kernel is of odd size k and pads with k // 2 zeros; the query's grid stays, the support's side
    n becomes ceil(n / stride).

    The released layer keeps the places it samples from its first call, and errs when the size changes.
    """

    def __init__(self, inputs: int, outputs: int, kernel_size: int, *, stride: int = 1, groups: int = 4):
        super().__init__()
        self.query = nn.Conv2d(inputs, outputs, kernel_size)
        self.support = nn.Conv2d(inputs, outputs, kernel_size)
        self.norm = nn.GroupNorm(groups, outputs)
        self.stride, self.padding = stride, kernel_size // 2

    def forward(self, x: Float[Tensor, "B C hq wq hs ws"]) -> Float[Tensor, "B D hq wq _ _"]:
        return self._joined(self._over_query(x[..., :: self.stride, :: self.stride]), self._over_support(x))

    def correlate(
        self, query: Float[Tensor, "B L C hq wq"], support: Float[Tensor, "B L C hs ws"]
    ) -> Float[Tensor, "B D hq wq _ _"]:
        """`forward` of the hypercorrelation of two unit features, without ever holding all of it.

        The convolution over the query has neighbours to look at, but only at every `stride`-th support place: these are
        correlated on their own. The one over the support has none: a query place is correlated with all of the support,
        convolved and forgotten, a few rows at a time.
        """
        correlations_of_a_row = query[:, :, 0, 0].numel() * support[0, 0, 0].numel()
        pieces = query.split(max(1, largest_piece(query.device) // correlations_of_a_row), dim=3)
        sampled = self._over_query(hypercorrelation(query, support[..., :: self.stride, :: self.stride]))
        whole = torch.cat([self._over_support(hypercorrelation(rows, support)) for rows in pieces], 2)
        return self._joined(sampled, whole)

    def _over_query(self, sampled: Tensor) -> Float[Tensor, "B D hs ws hq wq"]:
        """Each support place holds an image of the query: a stack of images, convolved one by one."""
        images = sampled.permute(_SUPPORT_FIRST)
        kernel, padding = self.query.weight[:, :, None], (0, self.padding, self.padding)
        return F.conv3d(images.flatten(2, 3), kernel, self.query.bias, padding=padding).unflatten(2, images.shape[2:4])

    def _over_support(self, x: Tensor) -> Float[Tensor, "B D hq wq _ _"]:
        """Each query place holds an image of the support. One no larger than the kernel is multiplied by a matrix.

        That is the convolution's own matrix, made of its answers to unit images: no tap of the kernel is spent on
        padding.
        """
        size, kernel = x.shape[-2:], self.support.weight
        if size.numel() > kernel[0, 0].numel():
            how = {"stride": (1, self.stride, self.stride), "padding": (0, self.padding, self.padding)}
            convolved = F.conv3d(x.flatten(2, 3), kernel[:, :, None], self.support.bias, **how)
            return convolved.unflatten(2, x.shape[2:4])
        units = torch.eye(size.numel(), dtype=kernel.dtype, device=kernel.device).view(-1, 1, *size)
        answers = F.conv2d(units, kernel.flatten(0, 1)[:, None], stride=self.stride, padding=self.padding)
        matrix = answers.unflatten(1, kernel.shape[:2]).permute(1, 3, 4, 2, 0)  # [D, hs', ws', C, hs * ws]
        product = matrix.flatten(3).flatten(0, 2) @ x.permute(_SUPPORT_FIRST).flatten(4).flatten(1, 3)
        product = product.unflatten(1, matrix.shape[:3]).unflatten(4, x.shape[2:4])
        return (product + self.support.bias[:, None, None, None, None]).permute(_SUPPORT_FIRST)

    def _joined(self, over_query: Tensor, over_support: Tensor) -> Float[Tensor, "B D hq wq _ _"]:
        return F.relu_(self.norm(over_support.add_(over_query.permute(_SUPPORT_FIRST))))

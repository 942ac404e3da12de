"""Hypercorrelation: how alike every place of the query is to every place of the support, in many layers at once, and
the centre-pivot convolution that squeezes these four-dimensional tensors.

Min, Kang, Cho, "Hypercorrelation Squeeze for Few-Shot Segmentation", ICCV 2021 (HSNet).

A 4D tensor is [B, C, hq, wq, hs, ws] throughout, the query's places first, then the support's. ResNet-50's largest has
25 million numbers for one pair of images of 400 pixels, so `CentrePivotBlock.correlate` never holds it as a whole.

In memory the channels come last: [B, hq, wq, hs, ws, C]. Then one such tensor is images of many columns (`_wide`), of
many channels (`_deep`) or many small images without a copy, in the layout in which processors convolve fastest.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fsslib.blocks.backbones import Backbone, pointwise
from fsslib.blocks.pooling import grid_weights

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
    features, levels = ((images - backbone.mean) / backbone.std).contiguous(memory_format=torch.channels_last), []
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
            levels.append(torch.stack([x.movedim(1, -1) for x in found or [features]], 1).movedim(-1, 2))
    if features.shape[-2:] != levels[-1].shape[-2:]:
        levels.append(features[:, None])
    return levels[::-1]


def _residual_sum(block: nn.Module, features: Float[Tensor, "B C h w"]) -> Float[Tensor, "B D _ _"]:
    """One of torchvision's residual blocks without its last activation function."""
    inside = F.relu_(block.bn1(block.conv1(features)))
    inside = block.bn2(block.conv2(inside))
    if hasattr(block, "conv3"):
        inside = block.bn3(block.conv3(F.relu_(inside)))
    if block.downsample is not None:
        features = block.downsample(features)
    return inside.add_(features)


def unit_features(
    features: Float[Tensor, "B L C h w"], masks: Int[Tensor, "B H W"] | None = None, *, eps: float = 1e-5
) -> Float[Tensor, "B L C h w"]:
    """Each place's feature divided by its length plus `eps`, so that a product of two is their cosine; 0 stays 0.

    With masks of features times the mask, read off at the grid's points (bilinear, corners aligned). Void is not the
    object.
    """
    shares = torch.ones_like(features[:, :1, :1])
    if masks is not None:
        shares = grid_weights(masks, features.shape[-2:], resize="mask", align_corners=True)[:, None, None]
    return features * (shares / (shares * features.norm(dim=2, keepdim=True) + eps))


def hypercorrelation(
    query: Float[Tensor, "B L C hq wq"], support: Float[Tensor, "B L C hs ws"]
) -> Float[Tensor, "B L hq wq hs ws"]:
    """The cosine of each query place x with each support place y, layer by layer, nothing below 0.

    C_l(x, y) = ReLU(<F_l(x), F_l(y)> / (|F_l(x)| |F_l(y)|)). Takes `unit_features`.
    """
    if query.device.type != "cpu":
        cosine = torch.einsum("blchw,blcs->bhwls", query, support.flatten(3))
    else:  # by convolution: oneDNN's is over twice as fast as a matrix product that was made for other processors
        layers = zip(query.flatten(0, 1).split(1), support.movedim(2, -1).flatten(2, 3).flatten(0, 1))
        cosine = torch.stack([pointwise(x, places)[0].movedim(0, -1) for x, places in layers], 2)
        cosine = cosine.unflatten(2, query.shape[:2]).movedim(2, 0)
    return cosine.relu_().unflatten(-1, support.shape[-2:]).movedim(3, 1)


def _wide(x: Float[Tensor, "B C hq wq hs ws"]) -> Float[Tensor, "B C hq _"]:
    """The images of the query that the support places hold as one image, in which their columns take turns."""
    return x.movedim(1, -1).flatten(2, 4).movedim(-1, 1)


def _deep(x: Float[Tensor, "B C hq wq hs ws"]) -> Float[Tensor, "B _ hq wq"]:
    """The images of the query that the support places hold as the channels of one image, the tensor's own innermost."""
    return x.movedim(1, -1).flatten(3).movedim(-1, 1)


def _from_deep(x: Float[Tensor, "B _ hq wq"], support: tuple[int, int]) -> Float[Tensor, "B C hq wq hs ws"]:
    return x.movedim(1, -1).unflatten(-1, (*support, -1)).movedim(-1, 1)


def resize_query(x: Float[Tensor, "B C _ _ hs ws"], size: tuple[int, int]) -> Float[Tensor, "B C hq wq hs ws"]:
    """The 4D tensor with another grid of query places, bilinear with corners aligned; support places stay."""
    return _from_deep(F.interpolate(_deep(x), size, mode="bilinear", align_corners=True), x.shape[4:])


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
        sampled = x[..., :: self.stride, :: self.stride]
        return self._normalised(self._over_query(sampled) + self._over_support(x))

    def correlate(
        self, query: Float[Tensor, "B L C hq wq"], support: Float[Tensor, "B L C hs ws"]
    ) -> Float[Tensor, "B D hq wq _ _"]:
        """`forward` of the hypercorrelation of two unit features, without ever holding all of it.

        The convolution over the query has neighbours to look at, but only at every `stride`-th support place: these are
        correlated on their own. The one over the support has none: a query place is correlated with all of the support,
        convolved and forgotten, a few rows at a time.

        Outside the support's mask all correlations are zero and left out: what sees no place of the mask is the sum of
        the biases.
        """
        sides, marked = support[0, 0, 0, :: self.stride, :: self.stride].shape, support.detach().norm(dim=2).sum((0, 1))
        rows, columns = (self._seeing(marked.any(axis)) for axis in (1, 0))
        inside = (slice(self.stride * part.start, self.stride * part.stop) for part in (rows, columns))
        query, support = (x.movedim(2, -1).contiguous().movedim(-1, 2) for x in (query, support[..., *inside]))
        few = max(1, largest_piece(query.device) // (query[:, :, 0, 0].numel() * support[0, 0, 0].numel()))
        pieces = (self._over_support(hypercorrelation(part, support)) for part in query.split(few, dim=3))
        found = torch.cat([piece.movedim(1, -1) for piece in pieces], 1)
        sampled = hypercorrelation(query, support[..., :: self.stride, :: self.stride])
        found.add_(self._over_query(sampled).movedim(1, -1))
        whole = (self.query.bias + self.support.bias).expand(*found.shape[:3], *sides, -1).contiguous()
        whole[:, :, :, rows, columns] = found
        del found, sampled
        return self._normalised(whole.movedim(-1, 1))

    def _seeing(self, marked: Bool[Tensor, "places"]) -> slice:
        """The cells of the result, along one axis, that see a marked place; the first, where there is none.

        All of them on a GPU, which would have to be waited for.
        """
        first, last = 0, len(marked) - 1
        if marked.device.type == "cpu":
            first, *_, last = 2 * (marked.nonzero().flatten().tolist() or [0])
        start = min(first // self.stride, -((self.padding - first) // self.stride))
        return slice(max(0, start), min(last + self.padding, len(marked) - 1) // self.stride + 1)

    def _over_query(self, sampled: Tensor) -> Float[Tensor, "B D hq wq hs ws"]:
        """Each support place holds an image of the query. In the wide image of all of them a place's neighbours in its
        own are as many columns away as there are support places.
        """
        apart = sampled.shape[4:].numel()
        how = {"padding": (self.padding, self.padding * apart), "dilation": (1, apart)}
        return F.conv2d(_wide(sampled), self.query.weight, self.query.bias, **how).unflatten(3, sampled.shape[3:])

    def _over_support(self, x: Tensor) -> Float[Tensor, "B D hq wq _ _"]:
        """Each query place holds an image of the support. One no larger than the kernel is multiplied by a matrix.

        That is the convolution's own matrix, made of its answers to unit images: no tap of the kernel is spent on
        padding.
        """
        size, kernel = x.shape[4:], self.support.weight
        if size.numel() > kernel[0, 0].numel():
            images = x.movedim(1, 3)
            convolved = F.conv2d(images.flatten(0, 2), kernel, self.support.bias, self.stride, self.padding)
            return convolved.contiguous(memory_format=torch.channels_last).unflatten(0, images.shape[:3]).movedim(3, 1)
        units = torch.eye(size.numel(), dtype=kernel.dtype, device=kernel.device).view(-1, 1, *size)
        answers = F.conv2d(units, kernel.flatten(0, 1)[:, None], stride=self.stride, padding=self.padding)
        matrix = answers.unflatten(1, kernel.shape[:2]).permute(3, 4, 1, 0, 2).flatten(3)  # [hs', ws', D, hs * ws * C]
        bias = self.support.bias.repeat(matrix.shape[:2].numel())
        return _from_deep(pointwise(_deep(x), matrix.flatten(0, 2), bias), matrix.shape[:2])

    def _normalised(self, x: Float[Tensor, "B D hq wq hs ws"]) -> Float[Tensor, "B D hq wq hs ws"]:
        """Group norm and ReLU; writes on `x`. With channels last, torch 2.15's own norm adds up hundreds of thousands
        of numbers one by one in float32 and is off by 1e-3.
        """
        places = x.movedim(1, -1).flatten(1, 4).to(torch.promote_types(x.dtype, torch.float32))

        def group_mean(values: Float[Tensor, "B places D"]) -> Float[Tensor, "B 1 D"]:
            means = values.mean(1, keepdim=True).unflatten(2, (self.norm.num_groups, -1)).mean(3, keepdim=True)
            return means.expand(-1, -1, -1, x.shape[1] // self.norm.num_groups).flatten(2)

        centred = places.sub_(group_mean(places))
        scale = self.norm.weight * (group_mean(centred.square()) + self.norm.eps).rsqrt()
        return F.relu_(torch.addcmul(self.norm.bias, centred, scale)).unflatten(1, x.shape[2:]).movedim(-1, 1)

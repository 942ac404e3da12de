"""PFENet: a prior of where the object may be, and the prototype compared with the query at several scales.

Tian, Zhao, Shu, Yang, Li, Jia, "Prior Guided Feature Enrichment Network for Few-Shot Segmentation", IEEE TPAMI 2020,
arXiv 2008.01449.

What the released code does otherwise, and what stands here:

1. Its backbone learns nothing, but its batch norm is left in training mode, so that the statistics drift with every
   episode, masked supports included. Here it is in evaluation mode; `legacy_batch_norm=True` brings the drift back.
2. Its ResNet has a stem of three 3x3 convolutions, and the first blocks of its last two stages look with the full
   dilation. torchvision's weights do not fit it; `legacy_backbone=True` builds it, for the released checkpoints.
3. Its schedule multiplies the printed learning rate by ten. That is the recipe's matter (recipes/pfenet_paper.yaml).
4. Its scales are four numbers of cells for each image size. Here they are shares of the grid, rounded, which gives the
   same numbers at 473 and 641 pixels, and any image size and shape will do.
5. It knows one way. Here several are answered one by one and merged by `merge_ways`.
6. Its VGG16 has batch norm. Here VGG16 is the one of the other methods, without.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from fsslib.blocks.backbones import Backbone, replace_stride_with_dilation
from fsslib.blocks.pooling import grid_weights, masked_average_pooling, without_autocast
from fsslib.episodes import Episode
from fsslib.methods.base import BinaryMethod, Kept, size_of

SCALES = (1.0, 0.5, 0.25, 0.125)
"""Sides of the feature enrichment's maps, as shares of the query's: 60, 30, 15 and 8 cells at 473 pixels."""


class PFENet(BinaryMethod):
    """A frozen backbone of three stages on one grid: the first two are compared, the third makes the prior.

    The prototype is the mean over the object and over the shots. At each scale query, prototype and prior are merged
    (`width` channels, by default 256 and at most the last stage's), told what the finer scale found, and classified;
    the scales together are classified once more, and that is the answer.

    10,817,034 parameters learn on ResNet-50. Interpolation has align_corners=True as in the release: right to the pixel
    for images of 8 m + 1 pixels at stride 8.
    """

    align_corners = True
    released_names = (  # dvlab-research/PFENet, on its own ResNet: legacy_backbone=True
        ("layer0.7.", "backbone.network.bn1."),
        ("layer0.", "backbone.network.conv1."),
        *((f"layer{n}.", f"backbone.network.layer{n}.") for n in (1, 2, 3, 4)),
        ("down_query.", "query_reduction."),
        ("down_supp.", "support_reduction."),
        ("init_merge.", "enrichment."),
        ("alpha_conv.", "between_scales."),
        ("beta_conv.", "within_scale."),
        ("inner_cls.", "side_classifiers."),
        ("res1.", "fusion."),
        ("res2.", "refinement."),
        ("cls.", "classifier."),
    )

    def __init__(
        self,
        backbone: Backbone,
        *,
        width: int | None = None,
        legacy_batch_norm: bool = False,
        legacy_backbone: bool = False,
    ):
        super().__init__()
        if len(backbone.stages) != 3 or len(set(backbone.strides)) != 1:
            raise ValueError(
                f"PFENet wants three stages of one stride; the backbone gives {backbone.stages}, {backbone.strides}."
            )
        if legacy_backbone:
            _as_released(backbone)
        self.backbone, self.keeps = backbone.requires_grad_(False), "" if legacy_batch_norm else "supports"
        backbone.frozen_batch_norm = not legacy_batch_norm
        backbone.train()
        first, second, third = backbone.channels
        width = width or min(256, third)

        def convolution(inputs: int, side: int = 3) -> nn.Conv2d:
            return nn.Conv2d(inputs, width, side, padding=side // 2, bias=False)

        def classifier() -> nn.Sequential:
            return nn.Sequential(convolution(width), nn.ReLU(), nn.Dropout2d(0.1), nn.Conv2d(width, 2, 1))

        def two_layers() -> nn.Sequential:
            return nn.Sequential(convolution(width), nn.ReLU(), convolution(width), nn.ReLU())

        def each_scale(make) -> nn.ModuleList:
            return nn.ModuleList(make() for _ in SCALES)

        self.query_reduction = nn.Sequential(convolution(first + second, 1), nn.ReLU(), nn.Dropout2d(0.5))
        self.support_reduction = nn.Sequential(convolution(first + second, 1), nn.ReLU(), nn.Dropout2d(0.5))
        self.enrichment = each_scale(lambda: nn.Sequential(convolution(2 * width + 1, 1), nn.ReLU()))
        self.between_scales = each_scale(lambda: nn.Sequential(convolution(2 * width, 1), nn.ReLU()))[1:]
        self.within_scale = each_scale(two_layers)
        self.side_classifiers = each_scale(classifier)
        self.fusion = nn.Sequential(convolution(len(SCALES) * width, 1), nn.ReLU())
        self.refinement = two_layers()
        self.classifier = classifier()

    def losses(self, batch: Episode) -> dict[str, Tensor]:
        """That of the answer, and the mean of those of the scales."""
        answer, *sides = (self.way_loss(logits, batch) for logits in self._all_answers(*self.encode_both(batch)))
        return {"segmentation": answer, "scales": sum(sides) / len(sides)}

    def frozen(self, images: Tensor, masks: Tensor | None = None) -> dict[str, Tensor]:
        """The three stages; of a support the third knows the object alone."""
        stages, seen = self.backbone.stages, []
        if masks is None:
            return dict(zip(stages, self.backbone(images)))

        def only_the_object(features: Tensor) -> Tensor:
            seen.append(features)
            return features * _on_grid(masks, features)

        first, _, high = self.backbone(images, {stages[1]: only_the_object})
        return dict(zip(stages, (first, seen[0], high * _on_grid(masks, high))))

    def encode(self, images: Tensor, masks: Tensor | None = None, kept: Kept = None) -> dict[str, Tensor]:
        with torch.no_grad():
            first, second, high = (kept or self.frozen(images, masks)).values()
        if masks is None:
            middle = self.query_reduction(torch.cat([second, first], 1))
            return {"middle": middle, "high": high, "size": size_of(images)}
        middle = self.support_reduction(torch.cat([second, first], 1))
        prototype = masked_average_pooling(middle, masks, resize="mask", eps=5e-4, align_corners=True)
        return {"prototype": prototype, "high": high}

    def answers(self, support: Mapping[str, Tensor], query: Mapping[str, Tensor]) -> Float[Tensor, "B N 2 h w"]:
        return self._all_answers(support, query)[0]

    def _all_answers(self, support: Mapping[str, Tensor], query: Mapping[str, Tensor]) -> list[Tensor]:
        """Binary logits [B, N, 2, h, w]: the answer on the query's grid, then those of each scale on its own."""
        batch, ways = support["prototype"].shape[:2]
        prototype = support["prototype"].mean(2).flatten(0, 1)[:, :, None, None]
        priors = prior_mask(query["high"], support["high"].flatten(1, 2))
        prior = priors.unflatten(1, support["prototype"].shape[1:3]).mean(2).flatten(0, 1)[:, None]
        middle = query["middle"].repeat_interleave(ways, 0)

        grid, found, sides = middle.shape[-2:], [], []
        for level, share in enumerate(SCALES):
            size = tuple(max(1, round(side * share)) for side in grid)
            scaled = F.adaptive_avg_pool2d(middle, size)
            parts = [scaled, prototype.expand_as(scaled), _resized(prior, size).to(scaled.dtype)]
            x = self.enrichment[level](torch.cat(parts, 1))
            if level:
                finer = _resized(found[-1], size)
                x = x + self.between_scales[level - 1](torch.cat([x, finer], 1))
            x = x + self.within_scale[level](x)
            sides.append(self.side_classifiers[level](x))
            found.append(_resized(x, grid))
        x = self.fusion(torch.cat(found, 1))
        answer = self.classifier(x + self.refinement(x))
        return [logits.unflatten(0, (batch, ways)) for logits in (answer, *sides)]


def prior_mask(query: Float[Tensor, "B C h w"], support: Float[Tensor, "B M C h w"]) -> Float[Tensor, "B M h w"]:
    """How alike is each cell of the query to the most alike cell of each of M supports, stretched to [0, 1].

    The largest cosine over the support's cells, of features that are zero outside the object; then per map
    (s - min) / (max - min + 1e-7). A support without an object gives 0 everywhere. The stretching knows no "nowhere":
    a query that lacks the class has its full contrast as well. No gradient; computed in float32, under autocast too;
    one support at a time, and of this the cells that are not zero.
    """
    with torch.no_grad():
        sought, there = (F.normalize(x.float().flatten(-2), dim=-2, eps=1e-7) for x in (query, support))
        with without_autocast(query.device):
            each = [_most_alike(cells, one) for cells, ones in zip(sought, there) for one in ones]
        most = torch.stack(each).unflatten(0, there.shape[:2])
        low, high = most.aminmax(dim=-1, keepdim=True)
        return ((most - low) / (high - low + 1e-7)).unflatten(-1, query.shape[-2:])


def _most_alike(query: Float[Tensor, "C cells"], support: Float[Tensor, "C others"]) -> Float[Tensor, "cells"]:
    """The largest product of each cell with another; those that are zero, outside the object, count as one."""
    there = slice(None) if support.is_meta else support.any(0)
    products = support[:, there].mT @ query
    return F.pad(products, (0, 0, 0, int(len(products) < support.shape[1]))).amax(0)


def _on_grid(masks: Int[Tensor, "B H W"], features: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 1 h w"]:
    """The mask at the size of the features; void is no object."""
    return grid_weights(masks, features.shape[-2:], resize="mask", align_corners=True).to(features.dtype)[:, None]


def _resized(maps: Float[Tensor, "B C _ _"], size: tuple[int, int]) -> Float[Tensor, "B C _ _"]:
    return F.interpolate(maps, size, mode="bilinear", align_corners=True)


def _as_released(backbone: Backbone) -> None:
    """Turn torchvision's bottleneck ResNet into the released one, in place."""
    if backbone.name not in ("resnet50", "resnet101") or backbone.weights.loaded:
        raise ValueError(
            f"legacy_backbone takes a resnet50 or resnet101 without weights, to be filled by `load_released`; found "
            f"{backbone.name} with weights from {backbone.weights.source}."
        )
    network = backbone.network

    def layer(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
        convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        return [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]

    *stem, network.bn1, _ = layer(3, 64, 2) + layer(64, 64) + layer(64, 128)
    network.conv1 = nn.Sequential(*stem)
    for convolutions, name in ((network.layer1[0], "conv1"), (network.layer1[0].downsample, "0")):
        outputs = convolutions.get_submodule(name).out_channels
        setattr(convolutions, name, nn.Conv2d(128, outputs, 1, bias=False))
    replace_stride_with_dilation(network.layer3, 2)
    replace_stride_with_dilation(network.layer4, 4)

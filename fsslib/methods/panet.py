"""PANet: the prototype network, asked the other way round as well while it learns.

Wang, Liew, Zou, Zhou, Feng, "PANet: Few-Shot Image Semantic Segmentation with Prototype Alignment", ICCV 2019, arXiv
1908.06391. On VGG16 this is the paper's network: 14,714,688 parameters, all trained, no others.

What the released code does otherwise, and what stands here:

1. Void counts as background in its support prototypes, and the query's void takes part in the alignment's. Here void is
   in no prototype.
2. With several ways, pixels of another way are in no background prototype. An episode here has one mask a way, which
   does not tell them from the background.
3. Its alignment loss is a mean over the pixels of a support image, NaN where all of them are void. Here such an image
   costs nothing.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fsslib.blocks.backbones import Backbone, replace_stride_with_dilation
from fsslib.blocks.pooling import masked_average_pooling
from fsslib.blocks.similarity import prototype_logits
from fsslib.episodes import VOID, Episode
from fsslib.methods.base import ReleasedNames, size_of, together
from fsslib.methods.prototype import PrototypeNetwork


def _released_names() -> ReleasedNames:
    """kaixin96/PANet: every second module of `features` is a block, every second of a block a convolution."""
    starts, convolutions = (0, 5, 10, 17, 24), (2, 2, 3, 3, 3)
    return [
        (f"encoder.backbone.features.{2 * block}.{2 * c}.", f"backbone.network.block{block + 1}.{start + 2 * c}.")
        for block, (start, count) in enumerate(zip(starts, convolutions))
        for c in range(count)
    ]


class PANet(PrototypeNetwork):
    """The prototype network with the alignment loss (the paper's PAR), `alignment_weight` times; 0 leaves it out.

    Features are brought to the size of the masks to be pooled. VGG16 ends as in the paper: its last block looks with
    dilation 2, and neither the last ReLU nor the last pool is there, so that features have both signs.
    """

    released_names = _released_names()

    def __init__(
        self,
        backbone: Backbone,
        *,
        alignment_weight: float = 1.0,
        scale: float = 20.0,
        resize: str = "features",
    ):
        super().__init__(backbone, scale=scale, resize=resize)
        self.alignment_weight = alignment_weight
        if backbone.name == "vgg16" and isinstance(backbone.network[-1][-1], nn.MaxPool2d):
            backbone.network.block5 = backbone.network.block5[:-2]
            replace_stride_with_dilation(backbone.network.block5, 2)

    def losses(self, batch: Episode) -> dict[str, Tensor]:
        """Cross-entropy of the query, void ignored, and the alignment loss, already weighted."""
        lead = batch.support_masks.shape[:3]
        features = self.features(together(batch))
        support, query = features[: lead.numel()], features[lead.numel() :]
        pooled = self._pool(support, batch.support_masks.flatten(0, 2))
        prototypes = {name: values.unflatten(0, lead) for name, values in pooled.items()}
        coarse = self.decode(prototypes, {"features": query, "size": size_of(query)})
        logits = F.interpolate(coarse, batch.query_images.shape[-2:], mode="bilinear", align_corners=False)
        losses = {"segmentation": F.cross_entropy(logits.float(), batch.query_labels, ignore_index=VOID)}
        if self.alignment_weight:
            losses["alignment"] = self.alignment_weight * self._alignment(support, query, coarse, batch)
        return losses

    def _alignment(self, support: Tensor, query: Tensor, coarse: Tensor, batch: Episode) -> Float[Tensor, ""]:
        """Segment the supports by the query's prototypes, pooled where the query was *predicted* to be what.

        Each support image is asked for its own way against the background: cross-entropy over its pixels but void, then
        the mean over shots, ways and episodes. A way without a predicted cell costs nothing.
        """
        lead = batch.support_masks.shape[:3]
        nearest = F.interpolate(batch.query_labels[:, None].float(), coarse.shape[-2:], mode="nearest-exact")[:, 0]
        predicted = torch.where(nearest == VOID, VOID, coarse.argmax(1))
        masks = [torch.where(predicted == VOID, VOID, (predicted == c).long()) for c in range(1 + batch.ways)]
        background, *ways = (masked_average_pooling(query, mask) for mask in masks)
        found = torch.stack([(mask == 1).flatten(1).any(1) for mask in masks[1:]], 1)

        foreground = torch.stack(ways, 1)[:, :, None].expand(*lead, -1)
        background = background[:, None, None].expand(*lead, -1)
        logits = prototype_logits(support, foreground.flatten(0, 2), background.flatten(0, 2), scale=self.scale)
        labels = batch.support_masks.flatten(0, 2)
        logits = F.interpolate(logits.float(), labels.shape[-2:], mode="bilinear", align_corners=False)
        total = F.cross_entropy(logits, labels, ignore_index=VOID, reduction="none").sum((1, 2))
        each = total / (labels != VOID).sum((1, 2)).clamp(min=1)
        return (each.unflatten(0, lead) * found[:, :, None]).mean()

"""The prototype network: the nearest of two mean features decides. Untrained, it is the baseline of every table.

Masked average pooling gives one vector for the object and one for the rest; a query pixel goes to the vector it is more
alike. Trained end to end it is PANet (Wang et al., ICCV 2019) without its alignment loss; not trained at all it tells
what a backbone already knows.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from fsslib.blocks.backbones import Backbone
from fsslib.blocks.pooling import background_mask, masked_average_pooling, merge_shots
from fsslib.blocks.similarity import cosine_similarity_map
from fsslib.episodes import Episode
from fsslib.methods.base import Method, size_of, together


class PrototypeNetwork(Method):
    """Cosine to the nearest prototype, times `scale`; softmax over background and ways is the answer, without a
    threshold.

    The background prototype pools all pixels that are neither the way's class nor void, averaged over shots and ways as
    in PANet. Features are the backbone's last stage, or all its stages concatenated at the last one's grid with
    `stages="all"`.

    Differs from the released PANet: void is in neither prototype (there it counts as background), and there is no
    alignment loss.
    """

    keeps = "images"

    def __init__(self, backbone: Backbone, *, scale: float = 20.0, resize: str = "mask", stages: str = "last"):
        super().__init__()
        if stages not in ("last", "all"):
            raise ValueError(f'stages is "last" or "all"; found {stages!r}.')
        self.backbone, self.scale, self.resize, self.stages = backbone, scale, resize, stages

    def features(self, images: Float[Tensor, "B 3 H W"] | Mapping[str, Tensor]) -> Float[Tensor, "B C h w"]:
        maps = self.backbone(images)
        if self.stages == "last":
            return maps[-1]
        grid = maps[-1].shape[-2:]
        return torch.cat([m if m.shape[-2:] == grid else F.adaptive_avg_pool2d(m, grid) for m in maps], 1)

    def encode_both(self, batch: Episode) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Of one pass for supports and queries, so that live batch norm sees them as one batch."""
        lead = batch.support_masks.shape[:3]
        features = self.features(together(batch))
        support = self._pool(features[: lead.numel()], batch.support_masks.flatten(0, 2))
        query = {"features": features[lead.numel() :], "size": size_of(batch.query_images)}
        return {name: values.unflatten(0, lead) for name, values in support.items()}, query

    def _pool(self, features: Tensor, masks: Tensor) -> dict[str, Tensor]:
        return {
            "foreground": masked_average_pooling(features, masks, resize=self.resize),
            "background": masked_average_pooling(features, background_mask(masks), resize=self.resize),
        }

    def encode(self, images: Tensor, masks: Tensor | None = None) -> dict[str, Tensor]:
        features = self.features(images)
        if masks is None:
            return {"features": features, "size": size_of(images)}
        return self._pool(features, masks)

    def decode(self, support: Mapping[str, Tensor], query: Mapping[str, Tensor]) -> Tensor:
        ways = merge_shots(support["foreground"].flatten(0, 1)).unflatten(0, support["foreground"].shape[:2])
        background = support["background"].mean((1, 2))
        maps = [cosine_similarity_map(query["features"], p) for p in (background, *ways.unbind(1))]
        size = tuple(query["size"][0].tolist())
        return F.interpolate(self.scale * torch.stack(maps, 1), size, mode="bilinear", align_corners=False)

"""SG-One: the similarity to the support's prototype guides a segmentation branch. Derived in notebook 20.

Zhang, Wei, Yang, Huang, "SG-One: Similarity Guidance Network for One-Shot Semantic Segmentation", IEEE Transactions on
Cybernetics 50(9), 2020, arXiv 1810.09091.

What the released code does otherwise, and what stands here:

1. Its 1x1 exit convolution has padding 1, so logits are two cells larger than the features and their border is bias
   alone; upsampled they sit one to two cells off. Here padding 0; `legacy_exit_pad=True` brings it back.
2. Its pooling divides by the mask's sum over the whole batch: harmless for the cosine, wrong for any other use. Here
   per image (blocks/pooling.py).
3. It trains on BGR images normalised as RGB and tests on RGB. Here RGB throughout.
4. Void pixels are foreground in its training and background in its test. Here they are in no loss and no score.
5. It upsamples features and logits as torch did in 2017 (align_corners=True). Here align_corners=False;
   `legacy_align_corners=True` brings it back.
6. It trains one image a step with momentum 0.99 at 1e-5, guidance layers ten times that, biases twice. Those groups
   exist here (`parameter_groups`), their rates are the recipe's matter.
7. It trains on images that hold a single class only. Here all base-class scenes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fsslib.blocks.backbones import Backbone
from fsslib.blocks.pooling import masked_average_pooling, merge_shots
from fsslib.blocks.similarity import cosine_similarity_map
from fsslib.episodes import Episode
from fsslib.methods.base import BinaryMethod, size_of, together


class SGOne(BinaryMethod):
    """Two branches on one backbone of three stages.

    Guidance: one 3x3 convolution without ReLU on the last stage gives the features that are pooled on the support and
    compared on the query. Segmentation: the stages are folded in one after the other
    (`width` channels, by default half the last stage's and at most 128); the result, multiplied by the similarity map,
    goes through two convolutions to {background, foreground}.

    On VGG16 this is the paper's network: 18,992,194 parameters, `guidance_channels` 512. `shots` says how K shots
    merge: "mean" of their prototypes (the release's `avg`), or "union" of their predictions (its `max`).
    Several ways are answered one by one and merged by `merge_ways`.
    """

    keeps = "images"

    def __init__(
        self,
        backbone: Backbone,
        *,
        width: int | None = None,
        guidance_channels: int | None = None,
        shots: str = "mean",
        resize: str = "features",
        legacy_exit_pad: bool = False,
        legacy_align_corners: bool = False,
    ):
        super().__init__()
        if len(backbone.channels) != 3:
            raise ValueError(f"SG-One folds in three stages; the backbone gives {backbone.stages}.")
        if shots not in ("mean", "union"):
            raise ValueError(f'shots is "mean" or "union"; found {shots!r}.')
        first, second, third = backbone.channels
        width = width or min(128, third // 2)
        self.backbone, self.shots, self.resize = backbone, shots, resize
        self.align_corners = legacy_align_corners
        self.guidance = nn.Conv2d(third, guidance_channels or third, 3, padding=1)
        self.side3 = nn.Conv2d(first, width, 3, padding=1)
        self.side4 = nn.Conv2d(width + second, width, 3, padding=1)
        self.side5 = nn.Conv2d(width + third, width, 3, padding=1)
        self.fuse = nn.Conv2d(width, width, 3, padding=1)
        self.exit = nn.Conv2d(width, 2, 1, padding=1 if legacy_exit_pad else 0)
        for layer in (self.guidance, self.side3, self.side4, self.side5, self.fuse, self.exit):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def parameter_groups(self) -> dict[str, list[dict[str, Any]]]:
        """One optimiser, "segmenter", with the release's four groups, so that a recipe can give each its own rate."""
        groups: dict[str, list] = {"weights": [], "biases": [], "guidance_weights": [], "guidance_biases": []}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                kind = "biases" if name.endswith("bias") else "weights"
                groups[f"guidance_{kind}" if name.startswith("guidance.") else kind].append(parameter)
        return {"segmenter": [{"name": name, "params": params} for name, params in groups.items() if params]}

    def encode_both(self, batch: Episode) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Of one pass for supports and queries, so that live batch norm sees them as one batch."""
        masks, lead = batch.support_masks.flatten(0, 2), batch.support_masks.shape[:3]
        stages = self.backbone(together(batch))
        guided = self.guidance(stages[-1])
        prototypes = self._pool(guided[: len(masks)], masks).unflatten(0, lead)
        side = self._segmentation_features([stage[len(masks) :] for stage in stages])
        query = {"guided": guided[len(masks) :], "side": side, "size": size_of(batch.query_images)}
        return {"prototype": prototypes}, query

    def encode(self, images: Tensor, masks: Tensor | None = None) -> dict[str, Tensor]:
        stages = self.backbone(images)
        guided = self.guidance(stages[-1])
        if masks is not None:
            return {"prototype": self._pool(guided, masks)}
        return {"guided": guided, "side": self._segmentation_features(stages), "size": size_of(images)}

    def _segmentation_features(self, stages: Sequence[Tensor]) -> Float[Tensor, "B width h w"]:
        grid = stages[-1].shape[-2:]
        first, second, third = (s if s.shape[-2:] == grid else F.adaptive_avg_pool2d(s, grid) for s in stages)
        x = F.relu(self.side3(first))
        x = F.relu(self.side4(torch.cat([x, second], 1)))
        return self.side5(torch.cat([x, third], 1))

    def _pool(self, guided: Tensor, masks: Tensor) -> Float[Tensor, "B C"]:
        return masked_average_pooling(guided, masks, resize=self.resize, align_corners=self.align_corners)

    def answers(self, support: Mapping[str, Tensor], query: Mapping[str, Tensor]) -> Float[Tensor, "B N 2 H W"]:
        prototypes, size = support["prototype"], tuple(query["size"][0].tolist())
        batch, ways, shots, channels = prototypes.shape
        union = self.shots == "union" and shots > 1
        asked = prototypes if union else merge_shots(prototypes.flatten(0, 1)).view(batch, ways, 1, channels)
        questions = asked.shape[1] * asked.shape[2]
        similarity = cosine_similarity_map(query["guided"].repeat_interleave(questions, 0), asked.flatten(0, 2))
        x = F.relu(self.fuse(query["side"].repeat_interleave(questions, 0) * similarity[:, None]))
        logits = self.resized(self.exit(x).unflatten(0, (batch, questions)), size)
        if not union:
            return logits
        # The union of the shots' predictions: per pixel the shot that is surest of the foreground answers.
        logits = logits.unflatten(1, (ways, shots))
        surest = (logits[:, :, :, 1] - logits[:, :, :, 0]).argmax(2)[:, :, None, None]
        return logits.gather(2, surest.expand(-1, -1, 1, 2, -1, -1))[:, :, 0]

"""HSNet: correlate query and support in many layers, and squeeze what comes out until a segmentation is left.

Min, Kang, Cho, "Hypercorrelation Squeeze for Few-Shot Segmentation", ICCV 2021, arXiv 2104.01538. The backbone learns
nothing, and the learner never sees a feature, only how alike features are. 2,573,794 parameters learn on ResNet-50,
2,587,394 on ResNet-101, 2,570,018 on VGG16.

What the released code does otherwise, and what stands here:

1. It holds every correlation tensor whole and copies it for both halves of a convolution. Here it is taken in pieces
   (blocks/correlation.py), with the same result.
2. Void is background in its training. Here it is in no loss. In the support it is no object, in both.
3. It answers one way. Here several are answered one by one and merged by `merge_ways`; then the logits of K shots are
   averaged, in place of the vote.
4. Its decoder upsamples to a square before its last two convolutions, whatever the image's shape. Here the shape is
   kept: equal for squares, its training's (`tests/methods/test_parity.py`); else logits differ.
5. At the label map's original size it goes there straight from the decoder (100x100 for 400 pixels), corners aligned,
   and takes the vote of K shots there. Here the vote is taken at the image's size, and scores go on from there, corners
   not aligned: pixels at the edges of objects may fall otherwise.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fsslib.blocks.backbones import Backbone
from fsslib.blocks.correlation import (
    CentrePivotBlock,
    feature_pyramid,
    largest_piece,
    resize_query,
    unit_features,
)
from fsslib.blocks.pooling import merge_shots
from fsslib.episodes import Episode
from fsslib.methods.base import BinaryMethod, Kept, Prediction, ReleasedNames, prediction_from_scores, size_of


def _released_names() -> ReleasedNames:
    """juhongm999/hsnet: torchvision's network whole, classifier and all, and blocks of three modules each."""
    pairs: list[tuple[str, str | None]] = [("backbone.fc.", None), ("backbone.classifier.", None)]
    for block, places in enumerate(map(range, (0, 5, 10, 17, 24), (5, 10, 17, 24, 31)), start=1):
        pairs += [(f"backbone.features.{place}.", f"backbone.network.block{block}.{place}.") for place in places]
    pairs.append(("backbone.", "backbone.network."))
    parts = {"4": "encoders.0", "3": "encoders.1", "2": "encoders.2", "4to3": "mixers.0", "3to2": "mixers.1"}
    for theirs, ours in parts.items():
        for block in range(3):
            first, second = (f"hpn_learner.encoder_layer{theirs}.{3 * block + n}." for n in (0, 1))
            here = f"learner.{ours}.{block}"
            pairs += [(f"{first}conv1.", f"{here}.query."), (f"{first}conv2.", f"{here}.support.")]
            pairs.append((second, f"{here}.norm."))
    places = {"1.0": 0, "1.2": 2, "2.0": 5, "2.2": 7}
    return [*pairs, *((f"hpn_learner.decoder{old}.", f"learner.decoder.{new}.") for old, new in places.items())]


class HSNet(BinaryMethod):
    """A frozen backbone, its stored statistics too, the hypercorrelations of its `feature_pyramid`, a learner on them.

    `width` is the learner's, by default 128 and at most half the channels of the last stage. On ResNets and VGG16 with
    an output stride of 32 (`backbone_options`) it is the paper's network. Any backbone with stages to compare will do:
    on tiny the three last stages are three levels of one layer each, all on one grid, and the width is 32.
    """

    keeps = "images"
    align_corners = True
    released_names = _released_names()

    def __init__(self, backbone: Backbone, *, width: int | None = None):
        super().__init__()
        self.backbone = backbone.requires_grad_(False)
        backbone.frozen_batch_norm = True
        backbone.train()
        example = torch.zeros(1, 3, 64, 64, device=backbone.mean.device)
        with torch.no_grad():
            levels = feature_pyramid(backbone, example)
        coarsest = levels[0].shape[-1]
        self.learner = Learner(
            [(level.shape[1], level.shape[-1] // coarsest) for level in levels],
            width or min(128, backbone.channels[-1] // 2),
        )

    @staticmethod
    def backbone_options(name: str) -> dict[str, Any]:
        """What `build_backbone` is told, so that the levels lie at 1/8, 1/16 and 1/32 of the image as in the paper."""
        if name == "tiny":
            return {}
        return {"output_stride": 32} | ({"stages": ("block4", "block5")} if name == "vgg16" else {})

    def losses(self, batch: Episode) -> dict[str, Tensor]:
        """Each shot answers on its own."""
        return {"segmentation": self.way_loss(self.shot_answers(*self.encode_both(batch)).flatten(1, 2), batch)}

    def predict(self, episode: Episode) -> Prediction:
        """The vote of K shots for one way, each answering on its own (`merge_shots`); else the largest logit.

        After a vote the scores are 1 for what won and 0 for the rest.
        """
        with torch.no_grad(), self.autocast(episode.query_images.device):
            return self.predict_encoded(*self.encode_both(episode))

    def predict_encoded(self, support: Mapping[str, Tensor], query: Mapping[str, Tensor]) -> Prediction:
        ways, shots = support["level0"].shape[1:3]
        if ways > 1 or shots == 1:
            return super().predict_encoded(support, query)
        foreground = merge_shots(self.shot_answers(support, query)[:, 0].argmax(2), rule="vote")
        return prediction_from_scores(torch.stack([1 - foreground, foreground], 1).float())

    def frozen(self, images: Tensor, masks: Tensor | None = None) -> dict[str, Tensor]:
        return {f"level{number}": level for number, level in enumerate(feature_pyramid(self.backbone, images))}

    def encode(self, images: Tensor, masks: Tensor | None = None, kept: Kept = None) -> dict[str, Tensor]:
        """The levels' unit features, "level0" the coarsest, of supports inside the mask only."""
        with torch.no_grad():
            levels = kept or self.frozen(images)
            encoded = {name: unit_features(level, masks) for name, level in levels.items()}
        if masks is None:
            encoded["size"] = size_of(images)
        return encoded

    def answers(self, support: Mapping[str, Tensor], query: Mapping[str, Tensor]) -> Float[Tensor, "B N 2 H W"]:
        return self.shot_answers(support, query).mean(2)

    def shot_answers(self, support: Mapping[str, Tensor], query: Mapping[str, Tensor]) -> Float[Tensor, "B N K 2 H W"]:
        """Binary logits by every support image on its own."""
        levels = [f"level{number}" for number in range(len(self.learner.encoders))]
        asked, lead = [query[level] for level in levels], support[levels[0]].shape[1:3]
        each = zip(*(support[level].flatten(1, 2).unbind(1) for level in levels))
        logits = torch.stack([self._pairs(asked, list(one)) for one in each], 1)
        return self.resized(logits, tuple(query["size"][0].tolist())).unflatten(1, lead)

    def _pairs(self, query: list[Tensor], support: list[Tensor]) -> Float[Tensor, "B 2 _ _"]:
        """The learner's answers, a few pairs at a time if they are large: one mask leaves out more than many."""
        correlations = query[-1][0, :, 0].numel() * support[-1][0, 0, 0].numel()
        few = max(1, largest_piece(query[0].device) // correlations)
        pieces = (zip(*(level.split(few) for level in levels)) for levels in (query, support))
        return torch.cat([self.learner(*pair) for pair in zip(*pieces)])


class Learner(nn.Module):
    """Squeeze the support out of every level, merge the levels from coarse to fine, decode what is left.

    `levels` tells, coarsest first, how many layers a level has and how many times finer than the coarsest its grid is.
    Three blocks shrink the coarsest level's support grid by 2 each. Every doubling of the grid makes one block more
    shrink it by 4, with a kernel of 5 in place of 3, so that all levels end on the same support grid.
    """

    def __init__(self, levels: Sequence[tuple[int, int]], width: int):
        super().__init__()
        widths = (width // 8, width // 2, width)
        self.encoders, self.mixers = nn.ModuleList(), nn.ModuleList()
        for layers, finer in levels:
            doublings = round(math.log2(finer))
            if 2**doublings != finer or doublings > 3:
                raise ValueError(
                    f"A level's grid is 1, 2, 4 or 8 times as fine as the coarsest; found {finer}. Choose other stages."
                )
            strides = [4] * doublings + [2] * (3 - doublings)
            blocks = zip((layers, *widths), widths, strides)
            self.encoders.append(
                nn.ModuleList(CentrePivotBlock(c, d, 5 if s == 4 else 3, stride=s) for c, d, s in blocks)
            )
        for _ in levels[1:]:
            self.mixers.append(nn.Sequential(*(CentrePivotBlock(width, width, 3) for _ in range(3))))
        self.decoder = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width // 2, 3, padding=1),
            nn.ReLU(),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
            nn.Conv2d(width // 2, width // 2, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width // 2, 2, 3, padding=1),
        )

    def forward(
        self, query: Sequence[Float[Tensor, "B _ _ _ _"]], support: Sequence[Float[Tensor, "B _ _ _ _"]]
    ) -> Float[Tensor, "B 2 _ _"]:
        merged = None
        for level, (first, *rest) in enumerate(self.encoders):
            x = first.correlate(query[level], support[level])
            for block in rest:
                x = block(x)
            if merged is not None:
                if merged.shape[4:] != x.shape[4:]:
                    raise ValueError(
                        f"The levels end on support grids of {tuple(merged.shape[4:])} and {tuple(x.shape[4:])} cells. "
                        "VGG16's pools round down: take images whose sides are multiples of 32, or of 400 pixels."
                    )
                x = self.mixers[level - 1](x + resize_query(merged, x.shape[2:4]))
            merged = x
        return self.decoder(merged.mean((4, 5)))

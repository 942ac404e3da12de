"""What a backbone knows before its first episode: dense classification of the toy world's base classes.

The papers start from ImageNet weights; the toy world has none, and from random weights SG-One learns to mark every
object, whatever the support shows (notebook 20). These weights are the stand-in. They are trained on the base classes
of a fold in the source domain, so nothing of the held-out classes, nor of any other domain, is in them.

    python -m fsslib.training.pretrain 0 1 2 3 4         writes data/weights/tiny-toy-fold0.pt and so on
"""

import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fsslib.blocks.backbones import Backbone, build_backbone
from fsslib.data.toyworld import ToyWorld, base_classes
from fsslib.episodes import VOID, LabelledImages
from fsslib.methods.base import Method
from fsslib.paths import shipped
from fsslib.training.fit import fit
from fsslib.training.recipe import Recipe


class BaseClassifier(Method):
    """A 1x1 convolution on the last stage says which class of a fixed list each pixel is of; 0 is background."""

    def __init__(self, backbone: Backbone, classes: int):
        super().__init__()
        self.backbone = backbone
        self.classifier = nn.Conv2d(backbone.channels[-1], 1 + classes, 1)

    def forward(self, batch: LabelledImages) -> Float[Tensor, "B classes H W"]:
        logits = self.classifier(self.backbone(batch.images)[-1])
        return F.interpolate(logits, batch.images.shape[-2:], mode="bilinear", align_corners=False)

    def losses(self, batch: LabelledImages) -> dict[str, Tensor]:
        return {"classes": F.cross_entropy(self(batch).float(), batch.labels, ignore_index=VOID)}


@dataclass(frozen=True)
class BaseImages:
    """Endless labelled toy images, each batch a function of its step. Label n + 1 is number n of `classes`."""

    source: ToyWorld
    classes: tuple[int, ...]
    batch_size: int = 16

    def batch(self, step: int) -> LabelledImages:
        rng = random.Random(f"images-0-{step}")
        ids = [
            f"c{self.classes[int(rng.random() * len(self.classes))]}-{int(rng.random() * 1_000_000):06d}"
            for _ in range(self.batch_size)
        ]
        images, class_map = self.source.images(ids)
        table = torch.full((max(self.classes) + 1,), VOID, device=class_map.device)
        table[0] = 0
        table[list(self.classes)] = torch.arange(1, 1 + len(self.classes), device=class_map.device)
        return LabelledImages(images, table[class_map], self.source.domain)


def main(folds: Sequence[str]) -> int:
    """Train `tiny` on the base classes of each fold in the source domain, and write its tensors for `build_backbone`.

    In half precision, which `build_backbone` reads and which moves no cosine by more than its third decimal.
    """
    for fold in map(int, folds):
        classes = base_classes(fold)
        torch.manual_seed(0)
        method = BaseClassifier(build_backbone("tiny"), len(classes))
        images = BaseImages(ToyWorld(distractors=classes), classes)
        fit(method, Recipe.load("base_classes"), {"source": images}, classes=classes)
        tensors = method.backbone.network.state_dict()
        file = shipped("data") / "weights" / f"tiny-toy-fold{fold}.pt"
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save({name: t.half() if t.is_floating_point() else t for name, t in tensors.items()}, file)
        print(file.name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""What a backbone knows before its first episode: dense classification of the toy world's base classes.

The papers start from ImageNet weights; the toy world has none, and from random weights SG-One learns to mark every
object, whatever the support shows (notebook 20). These weights are the stand-in. They are trained on the base classes
of a fold or a split in the source domain, so nothing of the held-out classes, nor of any other domain, is in them.

    python -m fsslib.training.pretrain toy 0 1 2 3 4     data/weights/tiny-toy-fold0.pt and so on, which are shipped
    python -m fsslib.training.pretrain toy_splits 3      data/cache/weights/tiny-toy_splits-split3-HASH.pt
"""

import hashlib
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import filelock
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fsslib.blocks.backbones import Backbone, build_backbone
from fsslib.data.cache import cache_root
from fsslib.data.toyworld import ToyWorld, base_classes, split_base_classes
from fsslib.episodes import VOID, LabelledImages
from fsslib.files import replacing
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


RULE = 1
"""Number of the rule by which this file trains: cached weights of another rule are made anew."""

SECONDS = 27.0
"""About what one training takes on one thread of a server processor of 2024, for forecasts alone."""


def weights_file(data: str, fold: int) -> Path:
    """Where the weights of a fold ("toy", shipped) or a split ("toy_splits", named by all they depend on) are."""
    if data == "toy":
        return shipped("data") / "weights" / f"tiny-toy-fold{fold}.pt"
    depends_on = f"{RULE} {split_base_classes(fold)} {Recipe.load('base_classes').model_dump_json()}"
    digest = hashlib.sha256(depends_on.encode()).hexdigest()[:8]
    return cache_root() / "weights" / f"tiny-{data}-split{fold}-{digest}.pt"


def make_weights(data: str, fold: int) -> Path:
    """Train `tiny` on the base classes of a fold or a split, unless the file is there, and return its path.

    Processes that want the same file wait for one of them, at an empty lock beside it that stays. In half precision,
    which `build_backbone` reads and which moves no cosine by more than its third decimal.
    """
    file = weights_file(data, fold)
    if file.exists():
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{file}.lock"):
        if file.exists():  # another process made it while this one waited
            return file
        print(f"{file} is trained first, once for all runs that start from it; about {SECONDS:.0f} s.", flush=True)
        classes = base_classes(fold) if data == "toy" else split_base_classes(fold)
        torch.manual_seed(0)
        method = BaseClassifier(build_backbone("tiny"), len(classes))
        images, threads = BaseImages(ToyWorld(distractors=classes), classes), torch.get_num_threads()
        torch.set_num_threads(1)  # with more the digits are others, and it takes as long
        try:
            fit(method, Recipe.load("base_classes"), {"source": images}, classes=classes, progress=False)
        finally:
            torch.set_num_threads(threads)
        tensors = method.backbone.network.state_dict()
        with replacing(file) as handle:
            torch.save({name: t.half() if t.is_floating_point() else t for name, t in tensors.items()}, handle)
    return file


def main(arguments: Sequence[str]) -> int:
    """Make the weights of these folds or splits of a data set that are not there; to make them anew, delete them."""
    data, *folds = arguments
    for fold in folds:
        print(make_weights(data, int(fold)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

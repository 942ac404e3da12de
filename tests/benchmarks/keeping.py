"""Work for `measure`: training on what frozen stages give of photographs, read from disk, and on the photographs."""

import atexit
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from fsslib.data.images import LabelledImageSet
from fsslib.data.keep import keep_features
from fsslib.data.layouts import Layout, find
from fsslib.data.toyworld import ToyWorld
from fsslib.episodes import EpisodeStream
from fsslib.methods import build_method
from fsslib.training.recipe import Recipe
from tests.benchmarks.evaluating import Work

FROZEN = {"freeze_backbone": True, "backbone_stages": "layer1,layer2,layer3"}
KEPT = {
    "PFENet on ResNet-50 at 473 px": ("3 or more", "pfenet", {"backbone": "resnet50"}, 473, 1),
    "HSNet on ResNet-50 at 400 px": ("1.25 or more", "hsnet", {"backbone": "resnet50"}, 400, 1),
    "SG-One on ResNet-18 at 256 px": ("2.1 or more", "sg_one", {"backbone": "resnet18", **FROZEN}, 256, 4),
}
"""The goal and the arguments of `keeping`. The last goal is 85 % of what would be won if features came for nothing."""


def pictures(folder: Path, count: int, size: int) -> LabelledImageSet:
    """Drawn pictures on files, in each of which one object covers a fifth."""
    (drawn, _), labels = (
        ToyWorld("photo", size=256).images([f"c1001-{n:06d}" for n in range(count)]),
        np.zeros((256,) * 2),
    )
    labels[60:175, 70:185] = 1
    for number, image in enumerate(drawn):
        Image.fromarray((255 * image).byte().permute(1, 2, 0).numpy()).save(folder / f"{number}.jpg", quality=90)
        Image.fromarray(labels.astype(np.uint8)).save(folder / f"{number}.png")
    layout = Layout("bench", ["{name}.jpg"], ["{name}.png"], {1: "aeroplane"})
    return LabelledImageSet(find(layout, folder).files, layout.named(), name="bench", domain="photo", size=size)


def keeping(method: str, options: dict[str, Any], size: int, batch_size: int, steps: int) -> tuple[Work, Work]:
    """Steps of a method: its frozen stages run each time, and kept. Both give the losses of the last step."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    images = pictures(folder, 6, size)
    plain = EpisodeStream(images, tuple(images.class_names), batch_size=batch_size)

    def work(kept: bool) -> Work:
        torch.manual_seed(0)
        network = build_method(method, **options).train()
        network.backbone.frozen_batch_norm = True
        network.train()
        stream = keep_features(network, plain, root=folder / "cache") if kept else plain
        optimizers = Recipe.load(method).optimizers_of(0, network)

        def train() -> dict[str, float]:
            torch.manual_seed(0)
            for number in range(steps):
                losses = network.training_step(stream.batch(number), optimizers)
            return losses

        return train

    return work(False), work(True)

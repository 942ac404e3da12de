"""Work for `measure`: evaluation in several ways, and HSNet in two."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F

from fsslib.blocks.backbones import build_backbone
from fsslib.data import open_task
from fsslib.data.toyworld import ToyWorld
from fsslib.episodes import Episode, EpisodeManifest, EpisodeRow, EpisodeSet, sample_rows
from fsslib.methods import build_method
from fsslib.methods.prototype import PrototypeNetwork
from fsslib.training.evaluate import evaluate
from tests.blocks import direct_correlation as direct

Work = Callable[[], object]


class Drawn(ToyWorld):
    """Episodes drawn beforehand, handed out row by row: evaluation without the drawing."""

    def __init__(self, world: ToyWorld, rows: list[EpisodeRow]):
        super().__init__(world.domain, size=world.size, distractors=world.distractors)
        self._places = {row: place for place, row in enumerate(rows)}
        self._all = super().episode(rows)

    def episode(self, rows: list[EpisodeRow]) -> Episode:
        places = [self._places[row] for row in rows]
        tensors = {k: v[places] for k, v in vars(self._all).items() if isinstance(v, torch.Tensor)}
        return replace(self._all, **tensors)


def evaluating(resize: str, drawing: bool, episodes: int) -> tuple[Work, Work]:
    """Scoring an untrained prototype network on the toy world episode by episode and in batches of 25."""
    task = open_task("toy", fold=0)
    rows = task.tests["photo"].sample(task.test_classes, episodes, seed="bench")
    source = task.tests["photo"] if drawing else Drawn(task.tests["photo"], rows)
    exam, method = EpisodeSet(source, EpisodeManifest(tuple(rows))), build_method("prototype", resize=resize)
    return tuple(lambda size=size: evaluate(method, exam, batch_size=size) for size in (1, 25))


def repeating(episodes: int, images_of_a_class: int) -> tuple[Work, Work]:
    """Scoring prototypes on ResNet-18 at 128 pixels, on episodes over a few images: encoded each time, and kept.

    60 episodes over 35 images show each image as often as 400 over the 229 usable ones of a fold of PASCAL VOC's small
    subset.
    """
    pictures = {c: [f"c{c}-{number:06d}" for number in range(images_of_a_class)] for c in range(1001, 1006)}
    rows = sample_rows(pictures, tuple(pictures), episodes, seed="bench")
    exam = EpisodeSet(Drawn(ToyWorld(size=128), rows), EpisodeManifest(tuple(rows)))
    method = PrototypeNetwork(build_backbone("resnet18", stages=("layer2", "layer3")))
    return tuple(lambda keep=keep: evaluate(method, exam, batch_size=10, keep_bytes=keep) for keep in (0, 2**30))


def hypercorrelating(size: int, learning: bool) -> tuple[Work, Work]:
    """HSNet on ResNet-50, one episode: answered, or a step of training. As the released code does it, and as here."""
    torch.manual_seed(0)
    method = build_method("hsnet", backbone="resnet50").train(learning)
    mask = torch.zeros(1, 1, 1, size, size, dtype=torch.int64)
    mask[..., size // 4 : -size // 4, size // 4 : -size // 4] = 1
    images = torch.rand(2, 1, 3, size, size)
    episode = Episode(images[0][:, None, None], mask, images[1], mask[:, 0, 0], torch.ones(1, 1, dtype=torch.int64))
    optimizer = torch.optim.Adam(method.learner.parameters())

    def step(loss: Callable[[], torch.Tensor]) -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    if learning:
        released = partial(step, lambda: F.cross_entropy(direct.logits(method, episode), episode.query_labels))
        return released, partial(step, lambda: method.losses(episode)["segmentation"])
    return torch.inference_mode()(lambda: direct.logits(method, episode).argmax(1)), lambda: method.predict(episode)

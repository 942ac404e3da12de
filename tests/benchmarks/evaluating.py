"""Work for `measure`: evaluation in several ways, and HSNet's correlation in two."""

from collections.abc import Callable
from dataclasses import replace

import torch

from fsslib.blocks.backbones import build_backbone
from fsslib.blocks.correlation import unit_features
from fsslib.data import open_task
from fsslib.data.toyworld import ToyWorld
from fsslib.episodes import Episode, EpisodeManifest, EpisodeRow, EpisodeSet, sample_rows
from fsslib.methods import build_method
from fsslib.methods.hsnet import Learner
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


def squeezing(size: int, pairs: int, whole: bool) -> tuple[Work, Work]:
    """HSNet's correlations of some pairs of images on ResNet-50, and the first block of each level, or the whole
    learner: in the direct form, and in pieces.
    """
    torch.manual_seed(0)
    learner = Learner([(3, 1), (6, 2), (4, 4)], 128)
    grids = [-(-size // stride) for stride in (32, 16, 8)]
    shapes = [(pairs, n, c, side, side) for n, c, side in zip((3, 6, 4), (2048, 1024, 512), grids)]
    inputs = query, support = [[unit_features(torch.randn(shape)) for shape in shapes] for _ in range(2)]
    for level in support:
        level[..., level.shape[-1] // 2 :] = 0  # outside the mask
    first = [blocks[0] for blocks in learner.encoders]

    layers = [[level.unbind(1) for level in levels] for levels in inputs]

    @torch.inference_mode()
    def direct_form() -> object:
        if whole:
            return direct.answer(learner, *layers)
        correlations = [direct.correlation(*pair) for pair in zip(*layers)]
        return [direct.squeeze(x, [block]) for x, block in zip(correlations, first)]

    @torch.inference_mode()
    def in_pieces() -> object:
        if whole:
            return torch.cat([learner(*pair) for pair in zip(*(zip(*(x.split(1) for x in y)) for y in inputs))])
        return [block.correlate(*pair) for block, pair in zip(first, zip(query, support))]

    return direct_form, in_pieces

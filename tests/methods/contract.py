"""Small batches and method builders for the contract test over all methods, on the device FSSLIB_TEST_DEVICE names.

`OnlyForward` is a method as somebody else might write it, in this file and nowhere registered.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

import torch

from fsslib.blocks.pooling import masked_average_pooling
from fsslib.blocks.similarity import cosine_similarity_map
from fsslib.episodes import VOID, Episode, LabelledImages
from fsslib.methods import METHODS, build_method, method_class
from fsslib.methods.base import BinaryMethod, Method
from fsslib.training.recipe import Recipe

DEVICE = os.environ.get("FSSLIB_TEST_DEVICE", "cpu")


def small_method(name: str, **options: Any) -> Method:
    torch.manual_seed(0)
    return build_method(name, **options).to(DEVICE)


def without_memory(name: str, **options: Any) -> Method:
    """On the meta device: it has shapes, but neither numbers nor costs."""
    with torch.device("meta"):
        return build_method(name, **options)


def random_episode(*, batch=2, ways=1, shots=1, height=32, width=32, seed=0) -> Episode:
    """An episode of noise with a square of each way in its support and its query, and a stripe of void in both."""
    generator = torch.Generator().manual_seed(seed)
    support_masks = torch.zeros(batch, ways, shots, height, width, dtype=torch.int64)
    support_masks[..., 4:14, 4:14] = 1
    support_masks[..., 0, :] = VOID
    query_labels = torch.zeros(batch, height, width, dtype=torch.int64)
    for way in range(ways):
        query_labels[:, 8:16, 6 * way + 2 : 6 * way + 8] = way + 1
    query_labels[:, -1] = VOID
    return Episode(
        support_images=torch.rand(batch, ways, shots, 3, height, width, generator=generator),
        support_masks=support_masks,
        query_images=torch.rand(batch, 3, height, width, generator=generator),
        query_labels=query_labels,
        class_ids=torch.arange(1, ways + 1).expand(batch, ways),
    ).to(DEVICE)


def random_images(*, batch=2, height=32, width=64, classes=11, seed=0) -> LabelledImages:
    """Images of noise with a square of each class and a stripe of void."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.zeros(batch, height, width, dtype=torch.int64)
    for number in range(classes):
        labels[:, 4:20, 5 * number : 5 * number + 5] = number
    labels[:, -1] = VOID
    return LabelledImages(torch.rand(batch, 3, height, width, generator=generator), labels).to(DEVICE)


SEGMENTERS = ["pixda"]
"""Methods with a fixed list of classes; all others take episodes."""

SPLIT = sorted(set(METHODS) - set(SEGMENTERS))
"""Methods that encode and decode episodes, so that evaluation may keep what was encoded."""

BINARY = [name for name in SPLIT if issubclass(method_class(name), BinaryMethod)]
"""Methods that answer each way against the rest."""

EPISODIC = [*SPLIT, "tests.methods.contract:OnlyForward"]
ALL_METHODS = [*EPISODIC, *SEGMENTERS]


class OnlyForward(Method):
    """All that a method needs: a pixel is as much a way's as its features are like the mean of the way's object."""

    def __init__(self, backbone, *, sharpness: float = 10.0):
        super().__init__()
        self.backbone = backbone
        self.sharpness = torch.nn.Parameter(torch.tensor(sharpness))

    def forward(self, batch: Episode) -> torch.Tensor:
        query = self.backbone(batch.query_images)[-1]
        maps = [torch.zeros_like(query[:, 0])]
        for images, masks in zip(batch.support_images.unbind(1), batch.support_masks.unbind(1)):
            features = self.backbone(images.flatten(0, 1))[-1]
            objects = masked_average_pooling(features, masks.flatten(0, 1)).unflatten(0, masks.shape[:2]).mean(1)
            maps.append(cosine_similarity_map(query, objects) - 0.5)
        logits = self.sharpness * torch.stack(maps, 1)
        return torch.nn.functional.interpolate(logits, batch.query_images.shape[-2:], mode="bilinear")


def random_batch(name: str, **sizes) -> Episode | LabelledImages:
    """A batch of the kind this method takes."""
    return random_images(**sizes) if name in SEGMENTERS else random_episode(**sizes)


def images_of(batch: Episode | LabelledImages) -> torch.Tensor:
    """The images whose pixels are answered."""
    return batch.images if isinstance(batch, LabelledImages) else batch.query_images


def without_labels(batch: Episode | LabelledImages) -> Episode | LabelledImages:
    """The batch with zeros in place of what is to be found."""
    if isinstance(batch, LabelledImages):
        return replace(batch, labels=torch.zeros_like(batch.labels))
    return replace(batch, query_labels=torch.zeros_like(batch.query_labels), query_class_map=None)


def only(episode: Episode, *, ways: Sequence[int] | None = None, shots: Sequence[int] | None = None) -> Episode:
    """These ways and shots, in this order, as an episode; labels stay."""
    ways = range(episode.ways) if ways is None else ways
    shots = range(episode.support_masks.shape[2]) if shots is None else shots
    return replace(
        episode,
        support_images=episode.support_images[:, list(ways)][:, :, list(shots)],
        support_masks=episode.support_masks[:, list(ways)][:, :, list(shots)],
        class_ids=episode.class_ids[:, list(ways)],
    )


def with_masks(episode: Episode, old: int, new: int) -> Episode:
    """The episode with another value in its support masks."""
    return replace(episode, support_masks=torch.where(episode.support_masks == old, new, episode.support_masks))


def optimizers_of(method: Method, rate: float = 0.01) -> dict[str, torch.optim.Optimizer]:
    return {name: torch.optim.SGD(groups, lr=rate) for name, groups in method.parameter_groups().items()}


def by_heart(method: Method, episode: Episode, recipe: Recipe, steps: int) -> tuple[dict[str, list[float]], float]:
    """Train on one episode of one way: the first of each loss and the mean of its last ten, and how well it is found.

    Of as many of the likeliest pixels as the object has, the share that is the object's: 1 is all, and a guess finds
    what the object covers. Neither hangs on the last step, nor on which side of a half a probability comes to lie.
    """
    optimizers = recipe.optimizers_of(0, method.train())
    rows = [method.training_step(episode, optimizers) for _ in range(steps)]
    losses = {name: [first, fmean(row[name] for row in rows[-10:])] for name, first in rows[0].items()}
    known, scores = episode.query_labels != VOID, method.eval().predict(episode).scores
    truth, likely = (episode.query_labels == 1)[known], (scores[:, 1] - scores[:, 0])[known]
    return losses, truth[likely.topk(int(truth.sum())).indices].float().mean().item()

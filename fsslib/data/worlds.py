"""Opening the tasks of `fsslib.data.DATA_SETS` on drawn worlds, which need no reader of files."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fsslib.data.sampling import group_ids, in_turn
from fsslib.data.streams import ImageSet
from fsslib.data.tasks import AdaptationTask, FewShotTask
from fsslib.data.toyworld import ToyWorld, base_classes, fold_classes, split_base_classes, split_classes
from fsslib.episodes import LabelledImages, SegmentationSource


def toy(*, fold, source, targets, size, device, novel_as_background=False, **_) -> FewShotTask:
    return _toy(base_classes(fold), fold_classes(fold), source, targets, size, device, novel_as_background)


def toy_splits(*, fold, source, targets, size, device, **_) -> FewShotTask:
    return _toy(split_base_classes(fold), split_classes(fold), source, targets, size, device)


def _toy(base, novel, source, targets, size, device, novel_as_background=False) -> FewShotTask:
    def world(domain, distractors):
        return ToyWorld(domain, size=size, distractors=distractors, device=device)

    train = world(source, (*base, *novel) if novel_as_background else base)
    tests = {domain: world(domain, base) for domain in dict.fromkeys((source, *targets))}
    return FewShotTask(train, base, tests, novel, novel_as_background=novel_as_background)


TEST_STREETS = 200
"""Test images of the toy streets: of the game, and of the cities together."""

HELD_OUT_STREETS = 50


@dataclass(frozen=True)
class Spoilt:
    """A source of which every tenth image is known to be bad: its picture stands on its head, its labels do not."""

    source: SegmentationSource

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)

    def images(self, ids: Sequence[str]) -> LabelledImages:
        """The source's images, the bad ones among them."""
        batch = self.source.images(ids)
        bad = torch.tensor([image_id in self.bad for image_id in ids], device=batch.images.device)
        images = torch.where(bad[:, None, None, None], batch.images.flip(2), batch.images)
        return LabelledImages(images, batch.labels, batch.domain)

    @functools.cached_property
    def bad(self) -> frozenset[str]:
        return frozenset(self.source.ids[::10])


def streets(*, data, targets, size, device, **_) -> AdaptationTask:
    # Here, for the toy world does without them.
    from fsslib.data.toyworld.streets import DEVELOPMENT_CITY, Streets, city_of

    game = Streets("game", size=size, device=device)
    (target,) = targets or ("cities",)
    towns = Streets("real", DEVELOPMENT_CITY if target == DEVELOPMENT_CITY else "all", size=size, device=device)
    seen = game.test_ids(TEST_STREETS + HELD_OUT_STREETS)
    asked = in_turn(towns.test_ids(TEST_STREETS // len(towns.domains)), city_of)
    tests = {"game": ImageSet(game, seen[:TEST_STREETS]), target: ImageSet(towns, asked)}
    learnt = Spoilt(game) if data == "streets_spoilt" else game
    return AdaptationTask(
        learnt, game.ids, towns, group_ids(towns.ids, city_of), tests, ImageSet(game, seen[TEST_STREETS:])
    )

"""Frozen sets and endless streams of images with a fixed class list: what episodes are to few-shot learning."""

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from fsslib.episodes import VOID, LabelledImages, SegmentationSource, draw


@dataclass(frozen=True)
class ImageSet:
    """Some images of a source with a fixed class list, in order: the counterpart of an `EpisodeSet`."""

    source: SegmentationSource
    ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def sha256(self) -> str:
        """Hash of the ids: equal hashes, equal test images."""
        return hashlib.sha256("".join(f"{i}\n" for i in self.ids).encode()).hexdigest()

    def batches(self, batch_size: int) -> Iterator[LabelledImages]:
        """The images in order, `batch_size` at a time; the last batch may be smaller."""
        for start in range(0, len(self), batch_size):
            yield self.source.images(self.ids[start : start + batch_size])


@dataclass(frozen=True)
class Relabelled:
    """A source seen with another's list of classes: `table` has the new number of each of its own. Void stays void."""

    source: SegmentationSource
    table: Mapping[int, int]
    class_names: Mapping[int, str]

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def domain(self) -> str:
        return self.source.domain

    @property
    def ids(self) -> tuple[str, ...]:
        return self.source.ids

    def images(self, ids: Sequence[str]) -> LabelledImages:
        """The source's images with the new numbers."""
        batch = self.source.images(ids)
        numbers = torch.full((VOID + 1,), VOID, device=batch.labels.device)
        for own, new in self.table.items():
            numbers[own] = new
        return LabelledImages(batch.images, numbers[batch.labels], batch.domain)


@dataclass(frozen=True)
class ImageStream:
    """Endless training images: batch number `step` is a draw of distinct images by (seed, step) alone.

    A set with fewer images than a batch gives each image once and repeats some.
    """

    source: SegmentationSource
    ids: tuple[str, ...]
    batch_size: int
    seed: str = "0"

    def __post_init__(self):
        if not self.ids:
            raise ValueError(f"A stream needs at least one image; {self.source.name} was left with none.")

    def batch(self, step: int, *, among: Sequence[int] | None = None) -> LabelledImages:
        """A batch, if wanted only of the images at these positions of `ids`."""
        pool = list(self.ids) if among is None else [self.ids[i] for i in among]
        rng = random.Random(f"{self.seed}-{step}")
        drawn: list[str] = []
        while len(drawn) < self.batch_size:
            drawn += draw(rng, pool, min(len(pool), self.batch_size - len(drawn)))
        return self.source.images(drawn)


@dataclass(frozen=True)
class PairStream:
    """Batches of source and target images, side by side."""

    source: ImageStream
    target: ImageStream

    def batch(self, step: int, *, among: Sequence[int] | None = None) -> tuple[LabelledImages, LabelledImages]:
        """The two streams' batches of this step; `among` restricts the source's."""
        return self.source.batch(step, among=among), self.target.batch(step)

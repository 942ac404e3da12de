"""Frozen sets and endless streams of images with a fixed class list: what episodes are to few-shot learning.

And, for streams of any kind, a thread that makes their next batches meanwhile.
"""

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

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

    def selected(self, step: int, method: Any) -> LabelledImages:
        """This step's batch: where there is one domain, nothing is selected."""
        return self.batch(step)


@dataclass(frozen=True)
class PairStream:
    """Batches of source and target images, side by side."""

    source: ImageStream
    target: ImageStream

    def batch(self, step: int, *, among: Sequence[int] | None = None) -> tuple[LabelledImages, LabelledImages]:
        """The two streams' batches of this step; `among` restricts the source's."""
        return self.source.batch(step, among=among), self.target.batch(step)

    def selected(self, step: int, method: Any) -> tuple[LabelledImages, LabelledImages]:
        """This step's batch out of the source images that are kept; after each pass over them fewer may be.

        Which of them stay is the method's answer, `method.selection(stream, positions, step)`. When that is less than a
        batch, the selection is over, and all images are used again. What is counted stands in the method's buffers
        `kept`, `passes`, `left_of_pass` and `selecting`, so that it is saved with it.
        """
        if method.selecting and method.left_of_pass == 0:
            size, kept = self.source.batch_size, method.kept.nonzero().flatten()
            if method.passes > 0:
                stays = method.selection(self, kept.tolist(), step).to(kept.device)
                if stays.sum() < size:
                    method.kept.fill_(True)
                    method.selecting.fill_(False)
                else:
                    method.kept[kept[~stays]] = False
            method.passes += 1
            method.left_of_pass.fill_(max(1, int(method.kept.sum()) // size))
        method.left_of_pass -= 1
        return self.batch(step, among=method.kept.nonzero().flatten().tolist())

    def side_by_side(self, positions: Sequence[int], step: int) -> Iterator[tuple[LabelledImages, LabelledImages]]:
        """The source images at these positions, four batches' worth at a time, each time with a batch of the target."""
        size = 4 * self.source.batch_size
        for start in range(0, len(positions), size):
            ids = [self.source.ids[i] for i in positions[start : start + size]]
            yield self.source.source.images(ids), self.target.batch(step + start)


@contextmanager
def ahead(streams: Mapping[str, Any], count: int, last: int) -> Iterator[tuple[Mapping[str, Any], Callable[[], None]]]:
    """The streams with up to `count` batches made in advance, to number `last`, and a function that waits for a pause.

    One thread makes them, on the device that the sources draw on, while the caller works; the batches are the same,
    by number. Sources are not made for two at a time: who reads one directly calls the function first. What fails in
    the thread is raised where the batch is asked for. At the end the batch under way is finished and no other begun.
    With `count` 0 everything is as without.
    """
    if not count:
        yield streams, lambda: None
        return
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as thread:
        try:
            yield (
                {name: _Ahead(stream, count, last, thread) for name, stream in streams.items()},
                lambda: thread.submit(lambda: None).result(),
            )
        finally:
            thread.shutdown(cancel_futures=True)


class _Ahead:
    """A stream seen through a thread. The next batches are made with the options of the last one that was asked for."""

    def __init__(self, stream: Any, count: int, last: int, thread: Executor):
        self._stream, self._count, self._last, self._thread = stream, count, last, thread
        self._made: dict[int, tuple[dict[str, Any], Future]] = {}

    def batch(self, step: int, **options: Any) -> Any:
        made_with, made = self._made.pop(step, (None, None))
        if made_with != options:
            made = self._thread.submit(self._stream.batch, step, **options)
        for number in range(step + 1, min(step + self._count, self._last) + 1):
            if number not in self._made:
                self._made[number] = options, self._thread.submit(self._stream.batch, number, **options)
        return made.result()

    def selected(self, step: int, method: Any) -> Any:
        """The stream's own selection, its batches made meanwhile."""
        return type(self._stream).selected(self, step, method)

    def __getattr__(self, name: str) -> Any:
        """Everything else is the stream's own, once the thread has made what it was asked for."""
        self._thread.submit(int).result()
        return getattr(self._stream, name)

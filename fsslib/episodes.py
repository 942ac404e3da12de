"""Episodes: what a few-shot segmenter is given and what it is asked.

An *N-way K-shot episode* shows, for each of N classes (the ways), K images with a mask of that class (the shots),
and asks for the same classes in one query image. This file holds the batch types every method reads, the rows and
manifests that freeze which images make up an episode, and the deterministic samplers that write such rows.

Sampling is data, not hidden state: a training batch is a function of (seed, step), and an evaluation set is a text
file with a hash. Worker counts, call order and interruptions therefore cannot change a number.
"""

import hashlib
import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fsslib.files import write_atomically

VOID = 255
"""Label of pixels that nobody may count: not foreground, not background, not in a loss, not in a score."""


def _each(value: Tensor | tuple | Mapping, change: Callable) -> Tensor | tuple | dict:
    return {name: change(one) for name, one in value.items()} if isinstance(value, Mapping) else change(value)


class _Batch:
    """Moving and slicing, shared by the batch types."""

    def to(self, device: torch.device | str):
        """The same batch with every tensor on `device`."""
        moved = {k: _each(v, lambda t: t.to(device)) for k, v in vars(self).items() if isinstance(v, Tensor | Mapping)}
        return replace(self, **moved)

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))

    def __getitem__(self, rows: slice):
        """Some of the batch, as a batch: `episode[2:4]`."""
        if not isinstance(rows, slice):
            raise TypeError(
                f"{type(self).__name__} takes a slice such as batch[0:1], which keeps the batch axis; found {rows!r}."
            )
        parts = {k: v for k, v in vars(self).items() if isinstance(v, Tensor | tuple | Mapping)}
        return replace(self, **{name: _each(value, lambda of_all: of_all[rows]) for name, value in parts.items()})


@dataclass(frozen=True)
class Episode(_Batch):
    """A batch of B episodes with N ways and K shots.

    Images are RGB floats in [0, 1]; backbones normalise inside their forward. In `support_masks` 1 is the way's class,
    0 everything else, 255 void. In `query_labels` n in 1..N is way n, 0 background, 255 void. `class_ids` are global
    over data sets. A way may be absent from the query: see `presence`.

    `query_class_map` (global class ids of all objects in the query, not only the ways) and `query_originals` (label
    maps at the images' own size, for protocols that score there) are there when the data set can give them. `kept` is
    what a method's frozen first stages give of the N K supports and the query, where training keeps that.
    """

    support_images: Float[Tensor, "B N K 3 H W"]
    support_masks: Int[Tensor, "B N K H W"]
    query_images: Float[Tensor, "B 3 H W"]
    query_labels: Int[Tensor, "B H W"]
    class_ids: Int[Tensor, "B N"]
    domain: str = ""
    query_class_map: Int[Tensor, "B H W"] | None = None
    query_originals: tuple[Tensor, ...] | None = None
    kept: Mapping[str, Float[Tensor, "B _ ..."]] | None = None

    def __post_init__(self):
        batch, ways, shots, _, *size = self.support_images.shape
        expected = {
            "support_masks": (batch, ways, shots, *size),
            "query_images": (batch, 3, *size),
            "query_labels": (batch, *size),
            "class_ids": (batch, ways),
        }
        for name, shape in expected.items():
            if (found := tuple(getattr(self, name).shape)) != shape:
                raise ValueError(
                    f"Episode: {name} has shape {found}, but support_images {tuple(self.support_images.shape)} "
                    f"(B, N, K, 3, H, W) calls for {shape}."
                )

    @property
    def ways(self) -> int:
        return self.support_images.shape[1]

    @property
    def shots(self) -> int:
        return self.support_images.shape[2]

    @property
    def presence(self) -> Bool[Tensor, "B N"]:
        """Whether each way has at least one pixel in its query."""
        ways = torch.arange(1, self.ways + 1, device=self.query_labels.device)
        return (self.query_labels.flatten(1)[:, None, :] == ways[None, :, None]).any(-1)


@dataclass(frozen=True)
class LabelledImages(_Batch):
    """A batch of images with full label maps, for segmenters with a fixed class list."""

    images: Float[Tensor, "B 3 H W"]
    labels: Int[Tensor, "B H W"]
    domain: str = ""


@dataclass(frozen=True)
class TaggedImages(_Batch):
    """A batch of images of which only the present classes are known: one row of 0/1 tags over the class list each."""

    images: Float[Tensor, "B 3 H W"]
    tags: Float[Tensor, "B classes"]
    domain: str = ""


@dataclass(frozen=True)
class EpisodeRow:
    """Which images make up one episode: the query, and K support ids for each of the N classes.

    Supports of a way are distinct, as `sample_rows` draws them, unless `repeats` says that the row comes from a
    protocol that draws with replacement (HSNet's).
    """

    query: str
    classes: tuple[int, ...]
    supports: tuple[tuple[str, ...], ...]
    repeats: bool = False

    def __post_init__(self):
        if len(self.supports) != len(self.classes):
            raise ValueError(f"{len(self.classes)} classes but supports for {len(self.supports)}: {self}")
        if any(self.query in way for way in self.supports):
            raise ValueError(f"The query {self.query!r} is among its own supports.")
        for way in self.supports:
            if len(set(way)) != len(way) and not self.repeats:
                raise ValueError(f"A support image is repeated within a way: {way}")


class ManifestError(ValueError):
    """A manifest file is damaged or not a manifest; the message names the line."""


@dataclass(frozen=True)
class EpisodeManifest:
    """A frozen list of episodes: everything an evaluation depends on beside the model.

    `about` says where the rows came from (data set, fold, seed ...) and travels in the file's header. The hash covers
    the rows only, so that two manifests with equal rows are equal for every comparison of scores. Repeated supports are
    read only from a file whose header allows them, as `save` writes it for rows that may have them.
    """

    rows: tuple[EpisodeRow, ...]
    about: Mapping[str, str] = field(default_factory=dict)

    HEADER = "# fsslib episodes 1"

    def body(self) -> str:
        """One line an episode: query; classes joined by commas; ways by semicolons, their shots by commas."""
        return "".join(
            f"{r.query}\t{','.join(map(str, r.classes))}\t{';'.join(','.join(way) for way in r.supports)}\n"
            for r in self.rows
        )

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.body().encode()).hexdigest()

    def save(self, path: Path | str) -> None:
        """Write the manifest as text, whole or not at all."""
        for name in (name for row in self.rows for name in (row.query, *itertools.chain(*row.supports))):
            if not name or any(c in name for c in "\t\n,;#"):
                raise ValueError(f"Image id {name!r} cannot stand in a manifest: no tabs, newlines, ',', ';', '#'.")
        about = dict(self.about) | ({"repeats": "allowed"} if any(row.repeats for row in self.rows) else {})
        header = [self.HEADER, *(f"# {key}: {value}" for key, value in about.items()), f"# sha256: {self.sha256}"]
        write_atomically(path, "\n".join(header) + "\n" + self.body())

    @classmethod
    def load(cls, path: Path | str) -> "EpisodeManifest":
        """Read a manifest and check its hash. Raises ManifestError naming the line that cannot be read."""
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        if not lines or lines[0] != cls.HEADER:
            raise ManifestError(f"{path}: the first line should be {cls.HEADER!r}; found {lines[:1]}.")
        about, rows = {}, []
        for number, line in enumerate(lines[1:], start=2):
            if line.startswith("# "):
                key, _, value = line[2:].partition(": ")
                about[key] = value
                continue
            try:
                query, classes, supports = line.split("\t")
                ways = tuple(tuple(way.split(",")) for way in supports.split(";"))
                repeats = about.get("repeats") == "allowed"
                rows.append(EpisodeRow(query, tuple(map(int, classes.split(","))), ways, repeats))
            except ValueError as error:
                raise ManifestError(f"{path}, line {number}: not an episode ({error}): {line[:120]!r}") from error
        stated = about.pop("sha256", None)
        about.pop("repeats", None)
        manifest = cls(tuple(rows), about)
        if stated != manifest.sha256:
            raise ManifestError(
                f"{path}: its rows hash to {manifest.sha256[:12]}..., its header says {str(stated)[:12]}...: the file "
                "was edited or cut. Restore it, or sample the episodes anew."
            )
        return manifest


@runtime_checkable
class EpisodeSource(Protocol):
    """What a data set offers: choose episodes by name, then make them into tensors. Both are deterministic."""

    name: str
    domain: str
    class_names: Mapping[int, str]

    def sample(
        self, classes: Sequence[int], episodes: int, *, ways: int, shots: int, seed: str, presence_probability: float
    ) -> list[EpisodeRow]: ...

    def episode(self, rows: Sequence[EpisodeRow]) -> Episode: ...


@runtime_checkable
class SegmentationSource(Protocol):
    """A data set with a fixed list of classes, 0 to C-1 in the label maps and 255 void: images are asked for by id."""

    name: str
    domain: str
    class_names: Mapping[int, str]
    ids: tuple[str, ...]

    def images(self, ids: Sequence[str]) -> LabelledImages: ...


def draw(rng: random.Random, items: Sequence, count: int) -> list:
    """`count` distinct items in random order, from `random()` alone: the only draw Python promises never to change."""
    pool = list(items)
    for i in range(count):
        j = i + int(rng.random() * (len(pool) - i))
        pool[i], pool[j] = pool[j], pool[i]
    return pool[:count]


def class_schedule(classes: Sequence[int], episodes: int, ways: int, rng: random.Random) -> list[tuple[int, ...]]:
    """The ways of each episode: every class leads equally often (to within one), the others are random."""
    if not 1 <= ways <= len(classes):
        raise ValueError(f"{ways}-way episodes need at least {ways} classes; {len(classes)} are given.")
    schedule = []
    while len(schedule) < episodes:
        for lead in draw(rng, classes, len(classes)):
            others = draw(rng, [c for c in classes if c != lead], ways - 1)
            schedule.append(tuple(draw(rng, [lead, *others], ways)))
    return schedule[:episodes]


def largest_group(images: Sequence[str], groups: Mapping[str, str]) -> tuple[str, int]:
    """The group with most of these images, and how many images are outside it: its queries have no other supports."""
    ((group, inside),) = Counter(groups[i] for i in images).most_common(1)
    return group, len(images) - inside


def sample_rows(
    images_by_class: Mapping[int, Sequence[str]],
    classes: Sequence[int],
    episodes: int,
    *,
    ways: int = 1,
    shots: int = 1,
    seed: str = "0",
    presence_probability: float = 1.0,
    groups: Mapping[str, str] | None = None,
) -> list[EpisodeRow]:
    """Episodes over a finite image set: K distinct supports per way, the query never among the supports of any way.

    With probability `presence_probability` the query is an image of one of its ways (whether it holds the other ways
    too is up to the image); otherwise it holds none of them. Deterministic in `seed` on every platform.

    `groups` names the group of every image, such as its video: all supports then come from other groups than the
    query, for neighbouring frames are nearly the same image.

    Raises ValueError when a class has too few images for K supports and a query, naming the class and the count; with
    groups, when a query from any of them would find fewer than K supports.
    """
    rng = random.Random(str(seed))
    for c in classes:
        images = images_by_class.get(c, ())
        if len(images) <= shots:
            raise ValueError(f"Class {c} has {len(images)} images; {shots}-shot episodes need {shots + 1}.")
        group, outside = largest_group(images, groups) if groups is not None else ("", shots)
        if outside < shots:
            raise ValueError(
                f"Class {c} has {outside} images outside the group {group!r}; {shots}-shot episodes with a query from "
                f"there need {shots}."
            )
    everything = sorted({i for images in images_by_class.values() for i in images})
    rows = []
    for ids in class_schedule(classes, episodes, ways, rng):
        if rng.random() < presence_probability:
            pool = images_by_class[ids[int(rng.random() * ways)]]
        else:
            holding = {i for c in ids for i in images_by_class[c]}
            pool = [i for i in everything if i not in holding]
            if not pool:
                raise ValueError(f"Every image holds one of the classes {ids}: no query without them can be drawn.")
        query = pool[int(rng.random() * len(pool))]
        near = {query} if groups is None else {i for i in groups if groups[i] == groups[query]}
        supports = tuple(tuple(draw(rng, [i for i in images_by_class[c] if i not in near], shots)) for c in ids)
        rows.append(EpisodeRow(query, ids, supports))
    return rows


@dataclass(frozen=True)
class EpisodeStream:
    """Endless training episodes: batch number `step` is a function of (seed, step) alone, so it resumes for free."""

    source: EpisodeSource
    classes: tuple[int, ...]
    batch_size: int = 8
    ways: int = 1
    shots: int = 1
    seed: int = 0
    presence_probability: float = 1.0

    def batch(self, step: int) -> Episode:
        more = {"seed": f"train-{self.seed}-{step}", "presence_probability": self.presence_probability}
        rows = self.source.sample(self.classes, self.batch_size, ways=self.ways, shots=self.shots, **more)
        return self.source.episode(rows)


@dataclass(frozen=True)
class EpisodeSet:
    """The episodes of a manifest, drawn or read from a source when asked for."""

    source: EpisodeSource
    manifest: EpisodeManifest

    def __len__(self) -> int:
        return len(self.manifest.rows)

    @property
    def sha256(self) -> str:
        """Hash of the manifest: equal hashes, equal questions."""
        return self.manifest.sha256

    def batches(self, batch_size: int) -> Iterator[Episode]:
        """The manifest's episodes in order, `batch_size` at a time; the last batch may be smaller."""
        for start in range(0, len(self), batch_size):
            yield self.source.episode(self.manifest.rows[start : start + batch_size])

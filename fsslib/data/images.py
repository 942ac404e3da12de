"""Labelled real images as an episode source: what the readers of all real data sets share.

A reader says which images there are, which classes they hold and how one of them is loaded; `LabelledImageSet` turns
that into episodes. Images and label maps are resized to a square, as HSNet and PANet do: the aspect ratio is not kept,
unless a protocol has it otherwise (`LabelledImageSet.under`).
"""

import copy
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from fsslib.data.cache import Pixels, pixel_cache, remembered
from fsslib.data.decode import (  # noqa: F401 (named from here elsewhere)
    NOTED,
    DataError,
    as_rgb,
    fitted,
    hold_sizes,
    in_words,
    read_image,
    read_label_map,
    resize_image,
    resize_labels,
    voc_palette,
)
from fsslib.episodes import VOID, Episode, EpisodeRow, largest_group, sample_rows
from fsslib.metrics import Protocol

MINIMUM_SHARE = 0.02
"""Share of an image that a class must cover for the image to be drawn as its support or query.

At 256 pixels that is 1,311 of 65,536: about 20 cells of a feature grid at stride 8, 5 at stride 16. Released protocols
drop small objects too, at larger images: OSLSM up to 2 cells at stride 32, PFENet below 2,048 pixels, either 32 cells
at stride 8 and about 1.1 % of a VOC image. The share is the same for training and test classes.
"""

CACHE_BYTES = 4 * 2**30
"""Room for decoded and resized images, 4 bytes a pixel (0.26 MB each at 256); what does not fit is decoded again."""

Loader = Callable[[str], tuple[Tensor, Tensor]]
"""From an image's id to its RGB image, uint8 [3, H, W], and its label map, uint8 [H, W], with 255 = void."""


@dataclass(frozen=True)
class ImageClasses:
    """What an image shows: classes with a pixel in it, and those large enough to be drawn as a support or query."""

    held: frozenset[int]
    large: frozenset[int]


def classes_in(labels: UInt8[Tensor, "H W"], size: int, *, minimum_share: float = MINIMUM_SHARE) -> ImageClasses:
    """Which classes a label map holds, judged at its own size.

    A class is large when it covers `minimum_share` of all pixels; the rule does not depend on `size`, so that episodes
    are the same at every resolution. One exception: a class of which nothing is left after the resize is never large,
    so that no support mask is empty.
    """
    counts = torch.bincount(labels.flatten(), minlength=VOID + 1)[1:VOID]
    left = torch.bincount(resize_labels(labels, size).flatten(), minlength=VOID + 1)[1:VOID]
    large = (counts >= minimum_share * labels.numel()) & (left > 0)
    return ImageClasses(*(frozenset((flags.nonzero().flatten() + 1).tolist()) for flags in (counts > 0, large)))


def scan_all(
    key: str, files: Mapping[str, tuple[Path, ...]], scan: Callable[[str], ImageClasses]
) -> dict[str, ImageClasses]:
    """What each image shows by `scan`, remembered on disk for large sets; see `fsslib.data.cache.remembered`.

    Nothing for a check, which reads every file itself (`fsslib.data.decode.noting`).
    """
    if NOTED.get() is not None:
        return dict.fromkeys(files, ImageClasses(frozenset(), frozenset()))

    def work(image_id: str) -> list[list[int]]:
        found = scan(image_id)
        return [sorted(found.held), sorted(found.large)]

    return {i: ImageClasses(*map(frozenset, found)) for i, found in remembered(key, files, work).items()}


def way_labels(labels: Int[Tensor, "B H W"], class_ids: Int[Tensor, "B N"]) -> Int[Tensor, "B H W"]:
    """Global class ids to way numbers: n for the pixels of the n-th way, 0 for every other class, void kept."""
    ways = torch.zeros_like(labels)
    for n in range(class_ids.shape[1]):
        ways[labels == class_ids[:, n, None, None]] = n + 1
    ways[labels == VOID] = VOID
    return ways


@dataclass(frozen=True)
class _Prepared:
    image: UInt8[Tensor, "3 S S"]
    labels: UInt8[Tensor, "S S"]
    original: UInt8[Tensor, "H W"] | None


class LabelledImageSet:
    """An episode source over image files with label maps.

    `contents` lists the images by id with the classes they hold (`classes_in`); `load` reads one of them at its own
    size. Ids are kept sorted, so episodes do not depend on the order of list files. Decoded and resized images stay in
    memory (see CACHE_BYTES), shared with the subsets made from this set. With `keep_originals` episodes carry the
    queries' label maps at their own size.

    `group_of` names the group of an image by its id, for sets whose images are not independent, such as frames of
    videos: an episode's supports then come from other groups than its query.

    `class_of` is for sets with one class an image, and with more classes than a label map of bytes can number: the
    maps that `load` gives then hold 1 for it, and here is its id.

    `files_of` names the files an image is made of, so that a cache on disk can tell when they change.

    `notes` are sentences on what a reader made of files that are not as they should be.
    """

    def __init__(
        self,
        contents: Mapping[str, ImageClasses],
        load: Loader,
        class_names: Mapping[int, str],
        *,
        name: str,
        domain: str,
        size: int,
        keep_originals: bool = False,
        group_of: Callable[[str], str] | None = None,
        class_of: Mapping[str, int] | None = None,
        files_of: Callable[[str], tuple[Path, ...]] | None = None,
    ):
        self.name, self.domain, self.class_names = name, domain, dict(class_names)
        self.size, self.keep_originals, self.group_of = size, keep_originals, group_of
        self.class_of, self.files_of = dict(class_of or {}), files_of
        self.notes: tuple[str, ...] = ()
        self._load, self.fit = load, "square"
        self._cache: dict[str, _Prepared] = {}
        self._pixels: Pixels | None = None
        self._set_contents(contents)

    def _set_contents(self, contents: Mapping[str, ImageClasses]) -> None:
        self.contents = {i: contents[i] for i in sorted(contents)}
        self.images_by_class = {
            c: tuple(i for i, classes in self.contents.items() if c in classes.large) for c in self.class_names
        }
        self._groups = None if self.group_of is None else {i: self.group_of(i) for i in self.contents}

    def __len__(self) -> int:
        return len(self.contents)

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self.contents)

    def cached(self, root: Path | None = None, *, workers: int | None = None) -> "LabelledImageSet":
        """The same set over a cache on disk, shared by all processes and later runs; see `fsslib.data.cache`.

        Decodes every image now, unless that was done before. Raises DataError for the first damaged file.
        """
        if self.files_of is None:
            raise ValueError(f"{self.name} does not say which files its images are made of: it cannot be cached.")
        files = {image_id: self.files_of(image_id) for image_id in self.contents}
        cached = copy.copy(self)
        cached._pixels = pixel_cache(
            self.name, files, self._load_resized, (self.size, self.size), root=root, workers=workers
        )
        return cached

    def under(self, protocol: Protocol) -> "LabelledImageSet":
        """The same set as a protocol brings it to the input's size, with `keep_originals` where it scores there.

        What no cache on disk holds is decoded anew.
        """
        keep = self.keep_originals or protocol.labels_at == "original"
        if (self.fit, self.keep_originals) == (protocol.fit, keep):
            return self
        seen = copy.copy(self)
        seen.fit, seen.keep_originals, seen._cache = protocol.fit, keep, {}
        return seen

    def restricted(self, ids: Iterable[str]) -> "LabelledImageSet":
        """The same set with only these images. Raises DataError for an id that is not in it."""
        ids = set(ids)
        if unknown := sorted(ids - self.contents.keys()):
            raise DataError(f"{len(unknown)} of these images are not in {self.name}, the first is {unknown[0]!r}.")
        subset = copy.copy(self)
        subset._set_contents({i: self.contents[i] for i in ids})
        return subset

    def without_classes(self, classes: Collection[int]) -> "LabelledImageSet":
        """The same set without the images that hold a pixel of one of these classes: they cannot leak into training."""
        return self.restricted(i for i, found in self.contents.items() if not found.held.intersection(classes))

    def usable_classes(self, classes: Iterable[int] | None = None, *, minimum_images: int = 20) -> tuple[int, ...]:
        """Those of `classes` (default: all) that `minimum_images` images or more show large enough."""
        classes = self.class_names if classes is None else classes
        return tuple(c for c in classes if len(self.images_by_class.get(c, ())) >= minimum_images)

    def describe(self, classes: Iterable[int]) -> str:
        """Each class with its number of usable images, for messages: "car 47, cat 136"."""
        return ", ".join(f"{self.class_names[c]} {len(self.images_by_class[c])}" for c in classes)

    def sample(
        self,
        classes: Sequence[int],
        episodes: int,
        *,
        ways: int = 1,
        shots: int = 1,
        seed: str = "0",
        presence_probability: float = 1.0,
    ) -> list[EpisodeRow]:
        """Rows over the images that show their class large enough; see `fsslib.episodes.sample_rows`.

        When ways may be absent, an image with only a scrap of one of `classes` is neither a query that holds it nor one
        that lacks it: such images are left out. Raises DataError for an unknown class or one with too few images, in
        all or outside the group that has most.
        """
        if unknown := [c for c in classes if c not in self.class_names]:
            known = ", ".join(f"{c} {name}" for c, name in self.class_names.items())
            raise DataError(f"Class {unknown[0]} is not in {self.name}. Its classes are: {known}.")
        images = self.images_by_class
        if presence_probability < 1:
            unclear = {i for i, found in self.contents.items() if (found.held - found.large).intersection(classes)}
            images = {c: tuple(i for i in members if i not in unclear) for c, members in images.items()}
        for c in classes:
            if len(images[c]) < shots + 1:
                raise DataError(
                    f"{shots}-shot episodes of class {c} ({self.class_names[c]}) need {shots + 1} images that show it "
                    f"large enough; these {len(self)} images of {self.name} have {len(images[c])}. Ask for fewer "
                    "shots, leave the class out, or add images."
                )
            if self._groups is not None:
                group, outside = largest_group(images[c], self._groups)
                if outside < shots:
                    raise DataError(
                        f"A query's supports come from other groups than itself. {shots}-shot episodes of class {c} "
                        f"({self.class_names[c]}) with a query from {group!r} need {shots} images of other groups of "
                        f"{self.name} that show it large enough; there are {outside}. Ask for fewer shots, leave the "
                        "class out, or add images of other groups."
                    )
        more = {"presence_probability": presence_probability, "groups": self._groups}
        return sample_rows(images, classes, episodes, ways=ways, shots=shots, seed=seed, **more)

    def episode(self, rows: Sequence[EpisodeRow]) -> Episode:
        """The images and masks of these rows. Raises DataError for a foreign image or a support without its class."""
        shapes = {(len(row.classes), len(way)) for row in rows for way in row.supports}
        if len(shapes) != 1:
            raise ValueError(f"A batch holds episodes of one kind; found (ways, shots) {sorted(shapes)}.")
        ((ways, shots),) = shapes
        support_ids = [i for row in rows for way in row.supports for i in way]
        query_ids = [row.query for row in rows]
        support, query = [self._prepare(i) for i in support_ids], [self._prepare(i) for i in query_ids]

        class_ids = torch.tensor([row.classes for row in rows])
        support_labels = torch.stack([self._global(i, s.labels) for i, s in zip(support_ids, support)])
        support_labels = support_labels.unflatten(0, (len(rows), ways, shots))
        support_masks = (support_labels == class_ids[:, :, None, None, None]).long()
        support_masks[support_labels == VOID] = VOID
        empty = ~(support_masks == 1).flatten(3).any(-1)
        if empty.any():
            b, n, k = empty.nonzero()[0].tolist()
            raise DataError(
                f"Support image {rows[b].supports[n][k]!r} of {self.name} shows nothing of class {rows[b].classes[n]} "
                f"at {self.size} pixels. The episodes were made for other images or another size: sample them anew."
            )
        query_class_map = torch.stack([self._global(i, q.labels) for i, q in zip(query_ids, query)])
        originals = None
        if self.keep_originals:
            full = [self._global(i, q.original) for i, q in zip(query_ids, query)]
            originals = tuple(way_labels(labels[None], class_ids[b : b + 1])[0] for b, labels in enumerate(full))
        return Episode(
            support_images=torch.stack([s.image for s in support]).unflatten(0, (len(rows), ways, shots)) / 255,
            support_masks=support_masks,
            query_images=torch.stack([q.image for q in query]) / 255,
            query_labels=way_labels(query_class_map, class_ids),
            class_ids=class_ids,
            domain=self.domain,
            query_class_map=query_class_map,
            query_originals=originals,
        )

    def original(self, image_id: str) -> tuple[UInt8[Tensor, "3 H W"], Int[Tensor, "H W"]]:
        """An image and its label map, with global class ids, at their own size. Raises DataError as `episode`."""
        image, labels = self._load_pair(image_id)
        return image, self._global(image_id, labels)

    def check(self) -> None:
        """Decode every file. Raises DataError that names all damaged ones (the first ten in full)."""
        problems = {}
        for image_id in self.contents:
            try:
                self._load_pair(image_id)
            except DataError as error:
                problems[image_id] = str(error)
        if problems:
            raise DataError("\n".join([f"{self.name}: damaged files: {len(problems)}.", *in_words(problems)]))

    def _global(self, image_id: str, labels: UInt8[Tensor, "H W"]) -> Int[Tensor, "H W"]:
        """A label map with global class ids, in 64 bits."""
        labels = labels.long()
        return torch.where(labels == 1, self.class_of[image_id], labels) if image_id in self.class_of else labels

    def _load_pair(self, image_id: str) -> tuple[Tensor, Tensor]:
        image, labels = self._load(image_id)
        hold_sizes(image_id, image.shape, labels.shape)
        return image, labels

    def _load_resized(self, image_id: str) -> tuple[Tensor, Tensor]:
        image, labels = self._load_pair(image_id)
        return fitted(image, labels, self.size)

    def _prepare(self, image_id: str) -> _Prepared:
        if image_id not in self.contents:
            raise DataError(
                f"Image {image_id!r} is not among these {len(self)} images of {self.name}: the episodes were made for "
                "another data set or another part of it."
            )
        if image_id in self._cache:
            return self._cache[image_id]
        on_disk = self.fit == "square" and not self.keep_originals
        if on_disk and self._pixels is not None and image_id in self._pixels:
            return _Prepared(*self._pixels[image_id], None)
        image, labels = self._load_pair(image_id)
        original = labels if self.keep_originals else None
        prepared = _Prepared(*fitted(image, labels, self.size, self.fit), original)
        each = 4 * self.size**2 + (labels.numel() if self.keep_originals else 0)
        if len(self._cache) * each < CACHE_BYTES:
            self._cache[image_id] = prepared
        return prepared

"""Real images with label maps: one class for all data sets, with two faces, episodes and batches.

Images and label maps are resized to a square, as HSNet and PANet do: the aspect ratio is not kept, unless a protocol
has it otherwise (`LabelledImageSet.under`).
"""

import copy
import functools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int, Int16, Integer, UInt8
from torch import Tensor

from fsslib.data.cache import ArrayCache, array_cache, remembered
from fsslib.data.decode import NOTED, DataError, fitted, hold_sizes, read_image, resize_labels
from fsslib.data.layouts import Place, read_labels
from fsslib.data.sampling import group_ids
from fsslib.episodes import VOID, Episode, EpisodeRow, LabelledImages, largest_group, sample_rows
from fsslib.protocols import Protocol

MINIMUM_SHARE = 0.02
"""Share of an image that a class must cover for the image to be drawn as its support or query.

At 256 pixels that is 1,311 of 65,536: about 20 cells of a feature grid at stride 8, 5 at stride 16. Released protocols
drop small objects too, at larger images: OSLSM up to 2 cells at stride 32, PFENet below 2,048 pixels, either 32 cells
at stride 8 and about 1.1 % of a VOC image. The share is the same for training and test classes.
"""

CACHE_BYTES = 4 * 2**30
"""Room for decoded and resized images, 5 bytes a pixel (0.33 MB each at 256); what does not fit is decoded again."""

Pair = tuple[UInt8[Tensor, "3 H W"], Int16[Tensor, "H W"]]


@dataclass(frozen=True)
class ImageClasses:
    """What an image shows: classes with a pixel in it, and those large enough to be drawn as a support or query."""

    held: frozenset[int]
    large: frozenset[int]


def classes_in(labels: Integer[Tensor, "H W"], size: int, *, minimum_share: float = MINIMUM_SHARE) -> ImageClasses:
    """Which classes a label map holds, judged at its own size.

    A class is large when it covers `minimum_share` of all pixels; the rule does not depend on `size`, so that episodes
    are the same at every resolution. One exception: a class of which nothing is left after the resize is never large,
    so that no support mask is empty.
    """
    values, counts = labels.unique(return_counts=True)
    found = {c: n for c, n in zip(values.tolist(), counts.tolist()) if c not in (0, VOID)}
    left = set(resize_labels(labels, size).unique().tolist())
    large = (c for c, n in found.items() if n >= minimum_share * labels.numel() and c in left)
    return ImageClasses(frozenset(found), frozenset(large))


def way_labels(labels: Int[Tensor, "B H W"], class_ids: Int[Tensor, "B N"]) -> Int[Tensor, "B H W"]:
    """Global class ids to way numbers: n for the pixels of the n-th way, 0 for every other class, void kept."""
    ways = torch.zeros_like(labels)
    for n in range(class_ids.shape[1]):
        ways[labels == class_ids[:, n, None, None]] = n + 1
    ways[labels == VOID] = VOID
    return ways


class LabelledImageSet:
    """Images with label maps: an `EpisodeSource` with ids of classes over all data sets, or a `SegmentationSource` with
    a fixed list of classes, 0 .. C-1.

    `size` tells which: the side of square images is for episodes, (height, width) for batches, where a size of another
    aspect ratio squeezes the images. `files` says where the images lie, by id; ids are kept sorted, so that episodes do
    not depend on the order of lists. What images show (`contents`) is found by reading every label map, when it is
    first asked for, and remembered for large sets. Decoded and resized images stay in memory (see CACHE_BYTES), shared
    with the subsets made from this set. `kept` reads what training keeps of the images of rows (`keep_features`).

    `groups` names the group of an image, for sets whose images are not independent, such as frames of videos: an
    episode's supports then come from other groups than its query. `repainted` gives the files for a protocol that has
    another object on top (COCO). `notes` are sentences on what was made of files that are not as they should be.

    A damaged file is found when it is first used, or by `fsslib.data.check`. A class of another kind of files gives its
    own `load`.
    """

    def __init__(
        self,
        files: Mapping[str, Place],
        class_names: Mapping[int, str],
        *,
        name: str,
        domain: str,
        size: int | tuple[int, int],
        groups: Mapping[str, str] | None = None,
        repainted: Callable[[str], Mapping[str, Place]] | None = None,
        notes: Sequence[str] = (),
    ):
        self.name, self.domain, self.class_names, self.notes = name, domain, dict(class_names), tuple(notes)
        self.size, self.keep_originals, self.fit, self.on_top = size, False, "square", "smaller"
        self._all_groups, self._repainted = groups, repainted
        self.kept: Callable[[Sequence[EpisodeRow]], Mapping[str, Tensor]] | None = None
        self._cache: dict[str, tuple[Tensor, Tensor, Tensor | None]] = {}
        self._pixels: dict[str, tuple[ArrayCache, str]] = {}
        self._keep(files)

    def _keep(self, files: Mapping[str, Place]) -> None:
        self.files = {image_id: files[image_id] for image_id in sorted(files)}
        self.ids = tuple(self.files)
        if not self.ids and not isinstance(self.size, int):
            raise DataError(f"{self.name} ({self.domain}) is left without an image.")
        self._groups = None if self._all_groups is None else {i: self._all_groups[i] for i in self.ids}

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width that images are served at."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    # What there is

    @functools.cached_property
    def contents(self) -> dict[str, ImageClasses]:
        """What each image shows; nothing in a check, which reads all files. DataError for a damaged map."""
        if NOTED.get() is not None:
            return dict.fromkeys(self.ids, ImageClasses(frozenset(), frozenset()))

        def work(image_id: str) -> list[list[int]]:
            found = classes_in(self._labels(image_id), self.size)
            return [sorted(found.held.union(self.files[image_id].held)), sorted(found.large)]

        found = remembered(f"{self.name}-{self.size}", {i: place.files for i, place in self.files.items()}, work)
        return {image_id: ImageClasses(*map(frozenset, found[image_id])) for image_id in self.ids}

    @functools.cached_property
    def images_by_class(self) -> dict[int, tuple[str, ...]]:
        """The images that show a class large enough to be drawn for it."""
        return {c: tuple(i for i, shown in self.contents.items() if c in shown.large) for c in self.class_names}

    def usable_classes(self, classes: Iterable[int] | None = None, *, minimum_images: int = 20) -> tuple[int, ...]:
        """Those of `classes` (default: all) with at least this many images that can be drawn."""
        classes = self.class_names if classes is None else classes
        return tuple(c for c in classes if len(self.images_by_class.get(c, ())) >= minimum_images)

    def describe(self, classes: Iterable[int]) -> str:
        """Each class with its number of usable images, for messages: "car 47, cat 136"."""
        return ", ".join(f"{self.class_names[c]} {len(self.images_by_class[c])}" for c in classes)

    # The same set otherwise

    def _copy(self, **changes) -> "LabelledImageSet":
        other = copy.copy(self)
        for name, value in changes.items():
            setattr(other, name, value)
        return other

    def restricted(self, ids: Iterable[str], domain: str | None = None) -> "LabelledImageSet":
        """The same set with only these images, if wanted under another domain's name; decoded images are shared.

        Raises DataError for an id that is not in it, and when none is left.
        """
        ids = set(ids)
        self._check_known(ids)
        subset = self._copy(domain=self.domain if domain is None else domain)
        subset._keep({i: self.files[i] for i in ids})
        subset.__dict__.pop("images_by_class", None)
        if "contents" in self.__dict__:
            subset.contents = {i: self.contents[i] for i in subset.ids}
        return subset

    def without_classes(self, classes: Collection[int]) -> "LabelledImageSet":
        """The same set without the images that hold a pixel of one of these classes: they cannot leak into training."""
        return self.restricted(i for i, shown in self.contents.items() if shown.held.isdisjoint(classes))

    def part(self, number: int, parts: int) -> "LabelledImageSet":
        """One of `parts` disjoint parts that have about as many images of each class; one part is the set itself.

        Each has a stretch of every large group, so that the frames of a drive are not dealt out to all parts, and small
        groups whole. An image counts for the rarest class that it shows.
        """
        if parts == 1:
            return self
        groups = group_ids(self.ids, (self._groups or dict.fromkeys(self.ids, "")).__getitem__)
        stretch = {
            i: place * parts // len(members) if len(members) >= parts else 0
            for members in groups.values()
            for place, i in enumerate(members)
        }
        dealt: dict[str, int] = {}
        for images in (*sorted(self.images_by_class.values(), key=len), self.ids):
            first, left = len(dealt), sorted((i for i in images if i not in dealt), key=lambda i: (stretch[i], i))
            dealt |= {i: (first + place * parts // len(left)) % parts for place, i in enumerate(left)}
        return self.restricted(i for i in self.ids if dealt[i] == number % parts)

    def cached(self, root: Path | None = None) -> "LabelledImageSet":
        """The same set over a cache on disk, shared by all processes and later runs; see `fsslib.data.cache`.

        Decodes every image now, unless that was done before. Raises DataError for the first damaged file.
        """
        files = {image_id: place.files for image_id, place in self.files.items()}
        about = f"{self.on_top} {sorted(self.class_names.items())}"

        def resized(image_id: str) -> Pair:
            return fitted(*self._load_pair(image_id), self.shape)

        kinds = {"images": (np.uint8, (3, *self.shape)), "labels": (np.int16, self.shape)}
        name = f"{self.name}-{'x'.join(map(str, self.shape))}"
        pixels = array_cache(name, files, resized, kinds, about=about, root=root)
        return self._copy(_pixels={} if pixels is None else {i: (pixels, i) for i in self.ids})

    def under(self, protocol: Protocol) -> "LabelledImageSet":
        """The same set as a protocol brings it to the input's size, with the queries' label maps at their own where it
        scores there.

        What no cache on disk holds is decoded anew. Where the protocol has another object on top (COCO), label maps are
        painted for it; what images hold stays as it was found.
        """
        keep = protocol.labels_at == "original"
        on_top = self.on_top if self._repainted is None else protocol.on_top
        if (self.fit, self.keep_originals, self.on_top) == (protocol.fit, keep, on_top):
            return self
        seen = self._copy(fit=protocol.fit, keep_originals=keep, on_top=on_top, _cache={})
        if on_top != self.on_top:
            files = self._repainted(on_top)
            seen.files, seen._pixels = {i: files[i] for i in self.ids}, {}
        return seen

    # Episodes and batches

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
        support_images, support_labels, _ = self._stacked([i for row in rows for way in row.supports for i in way])
        query_images, query_class_map, originals = self._stacked([row.query for row in rows])
        class_ids = torch.tensor([row.classes for row in rows])
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
        if self.keep_originals:
            originals = tuple(way_labels(o.long()[None], class_ids[b : b + 1])[0] for b, o in enumerate(originals))
        return Episode(
            support_images=support_images.unflatten(0, (len(rows), ways, shots)),
            support_masks=support_masks,
            query_images=query_images,
            query_labels=way_labels(query_class_map, class_ids),
            class_ids=class_ids,
            domain=self.domain,
            query_class_map=query_class_map,
            query_originals=originals if self.keep_originals else None,
            kept=self.kept and self.kept(rows),
        )

    def images(self, ids: Sequence[str]) -> LabelledImages:
        """These images in this order, with all their classes. Raises DataError for a foreign or a damaged file."""
        if not ids:
            raise ValueError(f"A batch holds at least one image; none of {self.name} was asked for.")
        images, labels, _ = self._stacked(ids)
        return LabelledImages(images, labels, self.domain)

    def original(self, image_id: str) -> tuple[UInt8[Tensor, "3 H W"], Int[Tensor, "H W"]]:
        """An image and its label map at their own size. Raises DataError for a damaged file."""
        self._check_known([image_id])
        image, labels = self._load_pair(image_id)
        return image, labels.long()

    # One image

    def load(self, image_id: str) -> Pair:
        """An image and its label map, as decoded from its files."""
        return read_image(self.files[image_id].image), self._labels(image_id)

    def _labels(self, image_id: str) -> Int16[Tensor, "H W"]:
        place = self.files[image_id]
        if isinstance(self.size, int):
            return read_labels(place, place.layout.ids)
        return read_labels(place, place.layout.places, background=VOID)

    def _load_pair(self, image_id: str) -> Pair:
        image, labels = self.load(image_id)
        hold_sizes(image_id, image.shape, labels.shape)
        return image, labels

    def _check_known(self, ids: Iterable[str]) -> None:
        if unknown := sorted(i for i in ids if i not in self.files):
            raise DataError(
                f"{len(unknown)} of these images are not among the {len(self)} of {self.name} ({self.domain}), the "
                f"first is {unknown[0]!r}: they belong to another data set or another part of it."
            )

    def _stacked(self, ids: Sequence[str]) -> tuple[Tensor, Tensor, list[Tensor | None]]:
        """Images in [0, 1] and label maps in 64 bits of these ids as batches, and the label maps' originals."""
        self._check_known(ids)
        images, labels, originals = zip(*(self._prepare(i) for i in ids))
        return torch.stack(images) / 255, torch.stack(labels).long(), list(originals)

    def _prepare(self, image_id: str) -> tuple[Tensor, Tensor, Tensor | None]:
        if image_id in self._cache:
            return self._cache[image_id]
        if image_id in self._pixels and self.fit == "square" and not self.keep_originals:
            cache, own_id = self._pixels[image_id]
            return *cache[own_id], None
        image, labels = self._load_pair(image_id)
        original = labels if self.keep_originals else None
        pair = fitted(image, labels, self.size, self.fit)
        height, width = self.shape
        if len(self._cache) * (5 * height * width + 2 * labels.numel() * self.keep_originals) < CACHE_BYTES:
            self._cache[image_id] = (*pair, original)
        return *pair, original

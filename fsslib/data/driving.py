"""Images of streets with label maps over a fixed list of classes: what the readers of all driving data sets share.

A reader says which images there are and how one of them is loaded, its labels already turned into the numbers
0 .. C-1 (Cityscapes calls them train ids) with 255 for void; `DrivingImages` serves them as batches of one size.
"""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from fsslib.data.cache import PixelCache, pixel_cache
from fsslib.data.decode import DataError, hold_sizes, resize_image, resize_labels
from fsslib.data.images import CACHE_BYTES, Loader
from fsslib.episodes import VOID, LabelledImages


class DrivingImages:
    """A `fsslib.episodes.SegmentationSource` over image files with label maps.

    `load` reads one image and its label map at their own size; both are brought to `size` (height, width), so a size of
    another aspect ratio squeezes them. An image is decoded when it is first asked for and then kept in memory, 4 bytes
    a pixel, as far as CACHE_BYTES go; what does not fit is decoded again. `files_of` names the files an image is made
    of, so that a cache on disk can tell when they change. Ids are kept sorted.

    Raises ValueError for classes that are not numbered 0 .. C-1, DataError for a set without images and, when an image
    is first asked for, for what `load` raises, a label map of another size than its image or with other numbers.
    """

    def __init__(
        self,
        ids: Iterable[str],
        load: Loader,
        class_names: Mapping[int, str],
        *,
        name: str,
        domain: str,
        size: tuple[int, int],
        files_of: Callable[[str], tuple[Path, ...]] | None = None,
    ):
        if sorted(class_names) != list(range(len(class_names))):
            raise ValueError(f"{name}: classes are numbered 0 .. C-1; found {sorted(class_names)}.")
        self.name, self.domain, self.class_names, self.size = name, domain, dict(class_names), size
        self._load, self.files_of = load, files_of
        self.notes: tuple[str, ...] = ()
        self._cache: dict[str, tuple[Tensor, Tensor]] = {}
        self._pixels: PixelCache | None = None
        self._set_ids(ids)

    def _set_ids(self, ids: Iterable[str]) -> None:
        self.ids = tuple(sorted(set(ids)))
        self._known = frozenset(self.ids)
        if not self.ids:
            raise DataError(f"{self.name} ({self.domain}) is left without an image.")

    def __len__(self) -> int:
        return len(self.ids)

    def restricted(self, ids: Iterable[str], domain: str | None = None) -> "DrivingImages":
        """The same source with only these images, if wanted under another domain's name; decoded images are shared.

        Raises DataError for an id that is not in it, and when none is left.
        """
        ids = set(ids)
        self._check_known(ids)
        subset = copy.copy(self)
        subset.domain = self.domain if domain is None else domain
        subset._set_ids(ids)
        return subset

    def cached(self, root: Path | None = None, *, workers: int | None = None) -> "DrivingImages":
        """The same source over a cache on disk, as `LabelledImageSet.cached`."""
        if self.files_of is None:
            raise ValueError(f"{self.name} does not say which files its images are made of: it cannot be cached.")
        files = {image_id: self.files_of(image_id) for image_id in self.ids}
        cached = copy.copy(self)
        cached._pixels = pixel_cache(self.name, files, self._load_resized, self.size, root=root, workers=workers)
        return cached

    def images(self, ids: Sequence[str]) -> LabelledImages:
        """These images in this order. Raises DataError for a foreign image and for a damaged file."""
        if not ids:
            raise ValueError(f"A batch holds at least one image; none of {self.name} was asked for.")
        self._check_known(ids)
        prepared = [self._prepare(i) for i in ids]
        return LabelledImages(
            images=torch.stack([image for image, _ in prepared]) / 255,
            labels=torch.stack([labels for _, labels in prepared]).long(),
            domain=self.domain,
        )

    def class_shares(self) -> dict[int, float]:
        """Each class's share of all labelled pixels (void not counted) of these images, at the source's size.

        Decodes every image. Raises DataError when all pixels are void.
        """
        counts = sum(torch.bincount(self._prepare(i)[1].flatten(), minlength=VOID + 1) for i in self.ids)
        counts = counts[: len(self.class_names)]
        if not counts.sum():
            raise DataError(f"The {len(self)} images of {self.name} ({self.domain}) have no labelled pixel.")
        return dict(enumerate((counts.double() / counts.sum()).tolist()))

    def _check_known(self, ids: Iterable[str]) -> None:
        if unknown := sorted(set(ids) - self._known):
            raise DataError(
                f"{len(unknown)} of these images are not among the {len(self)} of {self.name} ({self.domain}), the "
                f"first is {unknown[0]!r}: they belong to another data set or another part of it."
            )

    def _prepare(self, image_id: str) -> tuple[Tensor, Tensor]:
        if image_id in self._cache:
            return self._cache[image_id]
        if self._pixels is not None and image_id in self._pixels:
            return self._pixels[image_id]
        prepared = self._load_resized(image_id)
        height, width = self.size
        if len(self._cache) * 4 * height * width < CACHE_BYTES:
            self._cache[image_id] = prepared
        return prepared

    def _load_resized(self, image_id: str) -> tuple[Tensor, Tensor]:
        image, labels = self.original(image_id)
        return resize_image(image, self.size), resize_labels(labels, self.size)

    def original(self, image_id: str) -> tuple[UInt8[Tensor, "3 H W"], UInt8[Tensor, "H W"]]:
        """An image and its label map at their own size. Raises DataError for a damaged file."""
        image, labels = self._load(image_id)
        hold_sizes(image_id, image.shape, labels.shape)
        if extra := [v for v in labels.unique().tolist() if v >= len(self.class_names) and v != VOID]:
            raise DataError(
                f"{image_id}: the label map of {self.name} holds the values {extra[:8]}; it has the classes 0 to "
                f"{len(self.class_names) - 1}, and {VOID} for void."
            )
        return image, labels

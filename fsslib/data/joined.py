"""Several sets of labelled images as one, in which a class with one name is one class."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from fsslib.data.images import LabelledImageSet
from fsslib.metrics import Protocol


def joined(sets: Sequence[LabelledImageSet], *, name: str, domain: str) -> LabelledImageSet:
    """One set over the images of several; each image's id is the name of its set, a slash and its id there.

    Classes with one id are one class. Each set labels only the classes it has: objects of another's are background in
    its images. What counts as large, and the groups, are as in the sets; an image without a group is its own.

    Raises ValueError for sets with the same name or of different sizes, and for an id that means different classes.
    """
    settings = {(images.size, images.keep_originals) for images in sets}
    if len(settings) != 1:
        raise ValueError(f"Joined sets need one size and keep_originals; found {sorted(settings)}.")
    ((size, keep_originals),) = settings
    class_names: dict[int, str] = {}
    for images in sets:
        for c, class_name in images.class_names.items():
            if class_names.setdefault(c, class_name) != class_name:
                raise ValueError(
                    f"Class {c} is {class_names[c]!r} in one set and {class_name!r} in {images.name}: joined sets "
                    "share the ids of fsslib.data.names."
                )
    origins = {f"{images.name}/{i}": (images, i) for images in sets for i in images.ids}
    if len(origins) < sum(map(len, sets)):
        raise ValueError(f"Joined sets need different names; found {', '.join(images.name for images in sets)}.")

    def load(image_id: str) -> tuple[Tensor, Tensor]:
        images, own_id = origins[image_id]
        return images._load(own_id)

    def files_of(image_id: str) -> tuple[Path, ...]:
        images, own_id = origins[image_id]
        return images.files_of(own_id)

    def group_of(image_id: str) -> str:
        images, own_id = origins[image_id]
        return image_id if images.group_of is None else f"{images.name}/{images.group_of(own_id)}"

    together = _Joined(
        {image_id: images.contents[own_id] for image_id, (images, own_id) in origins.items()},
        load,
        dict(sorted(class_names.items())),
        name=name,
        domain=domain,
        size=size,
        keep_originals=keep_originals,
        group_of=group_of if any(images.group_of for images in sets) else None,
        files_of=files_of if all(images.files_of for images in sets) else None,
        class_of={i: images.class_of[own] for i, (images, own) in origins.items() if own in images.class_of},
    )
    together._pixels, together.sets = _JoinedPixels(origins), sets
    return together


class _Joined(LabelledImageSet):
    sets: Sequence[LabelledImageSet]

    def under(self, protocol: Protocol) -> LabelledImageSet:
        """Joined anew from the sets as the protocol has each of them."""
        parts = [images.under(protocol) for images in self.sets]
        if all(part is images for part, images in zip(parts, self.sets)):
            return super().under(protocol)
        seen = joined(parts, name=self.name, domain=self.domain).restricted(self.ids)
        return LabelledImageSet.under(seen, protocol)


@dataclass(frozen=True)
class _JoinedPixels:
    """The caches of several sets as one."""

    origins: Mapping[str, tuple[LabelledImageSet, str]]

    def __contains__(self, image_id: str) -> bool:
        images, own_id = self.origins[image_id]
        return images._pixels is not None and own_id in images._pixels

    def __getitem__(self, image_id: str) -> tuple[Tensor, Tensor]:
        images, own_id = self.origins[image_id]
        return images._pixels[own_id]

"""Real data sets as descriptions: where images and label maps lie, and what a label map says.

A pattern is a path below the data folder with fields, as "Kvasir-SEG/images/{name}.jpg". An image and a label map with
the same fields belong together, and of several patterns the first that fits has a file. `*` is text that tells nothing,
{number} is digits, {class} a key of the classes, {part} a part of the set. Capitals do not matter in the names of
files, hidden files do not count, and what fits no pattern is left alone.
"""

import functools
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Int16
from torch import Tensor

from fsslib.data.catalogue import next_step
from fsslib.data.decode import DataError, hold_sizes, read_label_map, read_size, refuse
from fsslib.data.names import ALIASES, class_id
from fsslib.episodes import VOID
from fsslib.paths import data_root

AGAIN = "Unpack the archive again, or remove what is alone."


@dataclass(frozen=True)
class Layout:
    """A data set. `classes` are the names of its classes, by the numbers of its label maps or by the text of {class}.

    - `read` makes numbers [H, W] of a label map's file, or of a mask True where its class is (`read_mask`). The default
      takes grey and VOC's palette; of another give `read_label_map` its colours. Numbers in `void` are void; all others
      that are neither in `classes` nor 0 are an error.
    - `id`: how an image is called. `grouped(ids)`: the group of each, where images are not independent.
    - `parts`: what {part} may be. `default`: the one that is opened unasked; without it all that are there.
    - `listed(root, part)`: the ids of a part, each with the file and line that names it; without it all files count.
    - `quirks`: what no pattern can say; each is called with what was found (`Found`), and changes it or refuses.
    - `fitted(numbers, size, path)`: a label map made to fit its image, where small differences are known.
    - `lonely`: images without a label map are left alone. `sparse`: classes that are not there are not missed.
    - `made(found, on_top)`: puts the images into `found` where label maps are not published as such.
    """

    name: str
    images: Sequence[str]
    labels: Sequence[str]
    classes: Mapping[int | str, str]
    read: Callable[[Path], Tensor] = read_label_map
    void: Collection[int] = (VOID,)
    id: str = "{name}"
    domain: str = ""
    parts: Sequence[str] = ()
    default: str | None = None
    listed: Callable[[Path, str | None], Mapping[str, str]] | None = None
    grouped: Callable[[Iterable[str]], Mapping[str, str]] | None = None
    quirks: Sequence[Callable[["Found"], None]] = ()
    fitted: Callable[[Tensor, tuple[int, int], Path], Tensor] | None = None
    lonely: bool = False
    sparse: bool = False
    made: Callable[["Found", str], None] | None = None

    @functools.cached_property
    def ids(self) -> Mapping[int | str, int]:
        """The id of each class over all data sets (`fsslib.data.names`), by its key."""
        return {key: class_id(name) for key, name in self.classes.items()}

    @functools.cached_property
    def places(self) -> Mapping[int | str, int]:
        """The place of each class in the list of classes, from 0, by its key."""
        places = {name: place for place, name in enumerate(dict.fromkeys(self.classes.values()))}
        return {key: places[name] for key, name in self.classes.items()}

    def named(self) -> dict[int, str]:
        """The classes' names by `ids`; a class that another set calls otherwise has one name in all."""
        return {self.ids[key]: ALIASES.get(name, name) for key, name in self.classes.items()}


@dataclass(frozen=True)
class Place:
    """Where an image lies, and its label maps by the class they are of ("" where the map itself tells).

    `held` are ids of classes that it is known to show without a pixel of its label map. `layout` says how to read it,
    or None where somebody else does.
    """

    layout: Layout | None
    image: Path
    labels: Mapping[int | str, Path]
    held: tuple[int, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.image, *self.labels.values())


@dataclass
class Found:
    """What was found of a data set below the data folder: its images by id, and remarks on what was made of them."""

    layout: Layout
    root: Path
    part: str | None
    files: dict[str, Place] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def missing(name: str, lacking: Path | str, root: Path) -> DataError:
    """The error for a data set that is not there, or not whole, with the next step."""
    return DataError(f"{name} is not complete: there is no {lacking}.\n{next_step(name, root)}")


def find(layout: Layout, root: Path | str | None = None, part: str | None = None, *, on_top: str = "smaller") -> Found:
    """The images of a set that have label maps, by id, below the data folder `root` (default: `data_root()`).

    `on_top` is for sets whose label maps are made (COCO). Raises DataError, with the next step, for a part or files
    that are not there, and for images or label maps that are alone.
    """
    root, part = data_root() if root is None else Path(root), part or layout.default
    if part not in (None, *layout.parts) and not (layout.listed and part.endswith(".txt")):
        there = ", ".join(layout.parts) or "none"
        raise DataError(f"{layout.name} has the parts {there}; asked for {part!r}. Name one of them, or none.")
    found = Found(layout, root, part)
    if layout.made is not None:
        layout.made(found, on_top)
    else:
        images, labels = (_matches(layout, patterns, root, part) for patterns in (layout.images, layout.labels))
        for there, patterns in ((images, layout.images), (labels, layout.labels)):
            if not there:
                raise missing(layout.name, root / _starred(patterns[0], part), root)
        _pair(found, images, labels)
    for quirk in layout.quirks:
        quirk(found)
    if "{class}" in layout.labels[0] and not layout.sparse:
        there = {of for place in found.files.values() for of in place.labels}
        for key in layout.classes.keys() - there:
            raise missing(layout.name, root / _starred(layout.labels[0].replace("{class}", str(key)), part), root)
    if not found.files:
        of = f"{layout.name}, part {part}," if part else layout.name
        raise DataError(f"{of} has no image with a label map below {root}.\n{next_step(layout.name, root)}")
    found.files = {image_id: found.files[image_id] for image_id in sorted(found.files)}
    return found


Fields = tuple[tuple[str, str], ...]


def _starred(pattern: str, part: str | None) -> str:
    return re.sub(r"\{\w+\}", "*", pattern.replace("{part}", part or "{part}"))


def _matches(layout: Layout, patterns: Iterable[str], root: Path, part: str | None) -> dict[Fields, Path]:
    """The files below `root` that fit one of the patterns, by their fields."""
    kinds = {"number": r"\d+", "class": f"(?-i:{_any_of(layout.classes)})", "part": _any_of(layout.parts)}
    found: dict[Fields, Path] = {}
    taken: set[Path] = set()
    for pattern in (pattern.replace("{part}", part or "{part}") for pattern in patterns):
        written = re.escape(pattern).replace(r"\*", "[^/]*")
        written = re.sub(r"\\\{(\w+)\\\}", lambda match: f"(?P<{match[1]}>{kinds.get(match[1], '[^/]+')})", written)
        fits, fresh = re.compile(written, re.IGNORECASE).fullmatch, {}
        for path in sorted(root.glob(_starred(str(Path(pattern).parent), part) + "/*")):
            match = None if path.name[0] == "." or path in taken else fits(path.relative_to(root).as_posix())
            if match:
                fields = tuple(match.groupdict().items())
                other = fresh.setdefault(fields, path)
                if other.parent == path.parent and other != path:
                    refuse({str(path): f"{other} and {path} have one name."}, "Remove the one not of the archive.")
        taken.update(fresh.values())
        found = fresh | found
    return found


def _any_of(texts: Iterable[object]) -> str:
    return "|".join(re.escape(text) for text in sorted(map(str, texts), key=len, reverse=True))


def _pair(found: Found, images: Mapping[Fields, Path], labels: Mapping[Fields, Path]) -> None:
    """Put images and label maps together by the fields that both have."""
    layout, lists = found.layout, found.layout.listed
    named = None if lists is None else lists(found.root, found.part)
    shared = {name for name, _ in next(iter(images))} & {name for name, _ in next(iter(labels))}

    def key(fields: Fields) -> Fields:
        return tuple(one for one in fields if one[0] in shared)

    images, alone, seen = {key(fields): path for fields, path in reversed(images.items())}, {}, set()
    for fields, path in sorted(labels.items()):
        image_id = layout.id.format(**dict(fields))
        seen.add(key(fields))
        if key(fields) in images:
            place = found.files.setdefault(image_id, Place(layout, images[key(fields)], {}))
            place.labels[dict(fields).get("class", "")] = path
        else:
            alone[str(path)] = f"{path} has no image of its name below {found.root}."
    lacking = {layout.id.format(**dict(fields)): path for fields, path in images.items() if fields not in seen}
    if named is not None:
        where = {image_id: f"{named[image_id]} names {image_id}, but" for image_id in named}
        refuse(
            {
                i: f"{said} there is no {'label map for ' + str(lacking[i]) if i in lacking else 'image of that name'}."
                for i, said in where.items()
                if i not in found.files
            },
            "Unpack the archive again, or take the line out of the list.",
        )
        found.files = {image_id: found.files[image_id] for image_id in named if image_id in found.files}
        return
    if layout.lonely and lacking:
        found.notes.append(f"{len(lacking)} images have no label map and are left alone.")
    elif lacking:
        alone |= {str(path): f"{path} has no label map of its name below {found.root}." for path in lacking.values()}
    refuse(alone, AGAIN)


def read_labels(place: Place, ids: Mapping[int | str, int], background: int = 0) -> Int16[Tensor, "H W"]:
    """The label map of an image at the image's size, in the numbers `ids` by class key; `background`, and 255 for void.

    Raises DataError for another size than the image's, for numbers that the set does not have, and for masks that
    overlap.
    """
    layout, size = place.layout, read_size(place.image)
    labels = torch.full(size, background, dtype=torch.int16)
    for of, path in place.labels.items():
        numbers = layout.read(path)
        if layout.fitted is not None:
            numbers = layout.fitted(numbers, size, path)
        hold_sizes(path, size, numbers.shape)
        if of != "":
            if (labels[numbers] != background).any():
                raise DataError(f"{path} overlaps another class's mask of this image. Cut or unpack them again.")
            labels[numbers] = ids[of]
            continue
        table = torch.full((257,), -1, dtype=torch.int16)
        table[0] = background
        table[list(layout.void)] = VOID
        table[list(ids)] = torch.tensor(list(ids.values()), dtype=torch.int16)
        labels = table[numbers.long().clamp(max=256)]
        if (labels == -1).any():
            raise foreign(path, numbers[labels == -1], {0, *ids, *layout.void}, layout.name)
    return labels


def foreign(path: Path, numbers: Tensor, known: Collection[int], name: str) -> DataError:
    """The error for numbers in a label map that its set does not have."""
    top = max((number for number in known if number != VOID), default=0)
    said = [f"0 to {top}", *(["255"] if VOID in known else [])]
    said = " and ".join(said) if known >= {*range(top + 1)} else ", ".join(map(str, sorted(known)))
    return DataError(
        f"{path} holds the values {numbers.unique().tolist()[:8]}; label maps of {name} hold {said}. It is of another "
        "release, or was saved in other numbers or in grey levels of its colours: restore it from the archive."
    )


def variant(layout: Layout, name: str, **changes) -> Layout:
    """The same set read otherwise, under a name of its own: scores of the two do not compare."""
    return replace(layout, name=name, domain=layout.domain or layout.name, **changes)

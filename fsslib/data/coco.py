"""COCO: photographs in which the objects of 80 classes are outlined.

Expected below the data folder, as the archives unpack:

    coco/train2017/000000000009.jpg
    coco/annotations/instances_train2017.json

The outlines are painted once, into label maps that stay in a cache folder; that needs `pip install "fsslib[coco]"`.
"""

import copy
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from fsslib.data.cache import cache_root, make_once
from fsslib.data.decode import NOTED, DataError, read_image, read_label_map, read_size, refuse
from fsslib.data.images import ImageClasses, LabelledImageSet, classes_in, scan_all
from fsslib.data.names import class_id, named
from fsslib.episodes import VOID
from fsslib.metrics import Protocol
from fsslib.paths import data_root

RULE = 1
"""Number of the rule by which outlines become label maps: label maps in the cache that follow another are replaced."""

RESTORE = "Restore the JSON from its archive, or take the annotation out."

HOW_TO_GET = """To get it, unpack in {folder}:
  1. the images (train2017: 18 GB): http://images.cocodataset.org/zips/{part}.zip
  2. the outlines: http://images.cocodataset.org/annotations/annotations_trainval{year}.zip
Set FSSLIB_DATA to the folder that holds coco. The toy world (data "toy") needs no download."""


class Coco(LabelledImageSet):
    """The images of one part of COCO ("train2017", "val2017", "train2014" ...) with its classes under their global ids.

    `root` holds the folder coco (default: `data_root()`). All images of the JSON are there, those without an object
    too; an image's id is its file name without the ending.

    Outlines and run lengths are filled by pycocotools at the size that the JSON gives. Where objects overlap, the
    smaller one (in pixels) lies on top; of two equal ones, that named later in the JSON. A crowd is painted in the same
    order, as void: its members are not told apart, and only some are outlined. The class of a crowd is held by its
    image, and never large enough on account of the crowd. Under the protocols "hsnet" and "pfenet" later objects lie
    on top, see `paint`: label maps in a folder of their own, painted when they are first asked for (`under`).

    The label maps are painted when a JSON is first opened (10 ms an image: 20 minutes for train2017), into `cache`
    (default: data/cache of the project), below it a folder named after the JSON's content: a changed JSON is painted
    anew. The first opening reads all label maps and the headers of all images, at 2 ms an image.

    Raises DataError for missing files, a JSON that is damaged or names an unknown image or class, outlines that cannot
    be filled, and images of another size than in the JSON. A damaged image is found when it is first used, or by
    `check()`.
    """

    def __init__(
        self,
        root: Path | str | None = None,
        *,
        part: str = "train2017",
        size: int = 256,
        keep_originals: bool = False,
        cache: Path | str | None = None,
    ):
        self.folder, self.annotations = find_folder(root, part)
        self._maps = cache_root() if cache is None else Path(cache), part
        self.on_top, self._pixels_of = "smaller", {}
        self.label_maps, manifest = find_or_paint_label_maps(self.annotations, *self._maps)
        refuse(manifest.get("unpainted", {}), RESTORE)
        self._files: Mapping[str, str] = manifest["images"]
        gone = {i: path for i in self._files if not (path := self._image_path(i)).is_file()}
        refuse(
            {i: f"{self.annotations} names an image for which {path} does not exist." for i, path in gone.items()},
            "Unpack the archive of the images again, or take these images out of the JSON.",
        )
        crowds = manifest["crowds"]
        super().__init__(
            scan_all(
                f"coco-{part}-{size}",
                {image_id: self._both_files(image_id) for image_id in self._files},
                lambda image_id: self._scan(image_id, size, crowds.get(image_id, ())),
            ),
            self._load_files,
            named(manifest["classes"]),
            name="coco",
            domain="photo",
            size=size,
            keep_originals=keep_originals,
            files_of=self._both_files,
        )

    def under(self, protocol: Protocol) -> "Coco":
        """As `LabelledImageSet.under`, with the protocol's object on top; what images hold stays as it was found."""
        seen = super().under(protocol)
        if self.on_top != protocol.on_top:
            seen = copy.copy(seen)
            seen._pixels_of = {**self._pixels_of, self.on_top: self._pixels}
            seen.on_top, seen._cache, seen._pixels = protocol.on_top, {}, self._pixels_of.get(protocol.on_top)
            seen._load, seen.files_of = seen._load_files, seen._both_files
            seen.label_maps, _ = find_or_paint_label_maps(self.annotations, *self._maps, protocol.on_top)
        return seen

    def _both_files(self, image_id: str) -> tuple[Path, Path]:
        return self._image_path(image_id), self._label_path(image_id)

    def _image_path(self, image_id: str) -> Path:
        """Names count from the part's folder, or from the one around it: "train2017/1.jpg"."""
        path, around = (folder / self._files[image_id] for folder in (self.folder, self.folder.parent))
        return around if not path.is_file() and around.is_file() else path

    def _label_path(self, image_id: str) -> Path:
        return self.label_maps / f"{image_id}.png"

    def _load_files(self, image_id: str) -> tuple[Tensor, Tensor]:
        return read_image(self._image_path(image_id)), read_label_map(self._label_path(image_id), {})

    def _scan(self, image_id: str, size: int, crowds: Sequence[int]) -> ImageClasses:
        path, labels = self._image_path(image_id), read_label_map(self._label_path(image_id), {})
        height, width = read_size(path)
        if (height, width) != tuple(labels.shape):
            raise DataError(
                f"{path} is {width} x {height} pixels, but {self.annotations} says {labels.shape[1]} x "
                f"{labels.shape[0]}, and its outlines are in pixels. Images and JSON are of different releases, or the "
                "images were resized: restore both from one source."
            )
        classes = classes_in(labels, size)
        return replace(classes, held=classes.held.union(crowds))


def find_folder(root: Path | str | None = None, part: str = "train2017") -> tuple[Path, Path]:
    """The folder of a part's images, and its JSON. Raises DataError with the next step when one is missing."""
    folder = (data_root() if root is None else Path(root)) / "coco"
    images, annotations = folder / part, folder / "annotations" / f"instances_{part}.json"
    for needed in (images, annotations):
        if not needed.exists():
            raise DataError(
                f"COCO is not complete: there is no {needed}.\n"
                + HOW_TO_GET.format(folder=folder, part=part, year=part[-4:])
            )
    return images, annotations


# From the JSON to label maps


@dataclass
class Picture:
    """An image of the JSON with what is annotated in it."""

    file: str
    height: int
    width: int
    objects: list[Mapping[str, Any]] = field(default_factory=list)


def find_or_paint_label_maps(
    annotations: Path, cache: Path, part: str, on_top: str = "smaller"
) -> tuple[Path, dict[str, Any]]:
    """The folder in `cache` with the label maps of a JSON, and their manifest; painted if they are not there.

    The folder appears whole or not at all, and processes that open the same JSON at once wait for one of them. Raises
    DataError when the JSON is damaged, pycocotools is missing, or the cache cannot be written.
    """
    with annotations.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    folder = cache / f"coco-{part}-{sha256[:8]}{'' if on_top == 'smaller' else f'-{on_top}'}"
    try:
        manifest = make_once(
            folder,
            lambda folder: _manifest(folder, sha256),
            lambda empty: _paint_label_maps(annotations, empty, sha256, on_top),
        )
    except OSError as error:
        raise DataError(
            f"The label maps of {annotations} cannot be written to {folder} ({error}). Name a folder with room for "
            "them: Coco(cache=...)."
        ) from error
    return folder, manifest


def _manifest(folder: Path, sha256: str) -> dict[str, Any] | None:
    """The manifest of a folder of label maps; None unless it is whole, of this JSON, and painted by today's rule."""
    try:
        manifest = json.loads((folder / "manifest.json").read_bytes())
    except (OSError, ValueError):
        return None
    whole = (
        manifest["rule"] == RULE
        and manifest["sha256"] == sha256
        and {path.stem for path in folder.glob("*.png")} == manifest["images"].keys()
        and not (manifest.get("unpainted") and NOTED.get() is None)
    )
    return manifest if whole else None


def _paint_label_maps(annotations: Path, folder: Path, sha256: str, on_top: str) -> None:
    _require_pycocotools()
    pictures, class_ids = read_instances(annotations)
    crowds, unpainted = {}, {}
    for image_id, picture in tqdm(
        pictures.items(), f"label maps of {annotations.name}", unit="image", leave=False, disable=None
    ):
        try:
            labels = paint(picture, class_ids, on_top)
        except ValueError as error:
            unpainted[image_id] = f"{annotations}: {picture.file} cannot be painted: {error}."
            refuse(unpainted, RESTORE)
            continue
        Image.fromarray(labels).save(folder / f"{image_id}.png")
        if found := sorted({class_ids[entry["category_id"]] for entry in picture.objects if entry.get("iscrowd")}):
            crowds[image_id] = found
    manifest = {
        "rule": RULE,
        "sha256": sha256,
        "annotations": sum(len(picture.objects) for picture in pictures.values()),
        "classes": sorted(set(class_ids.values())),
        "images": {image_id: picture.file for image_id, picture in pictures.items() if image_id not in unpainted},
        "unpainted": unpainted,
        "crowds": crowds,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def _require_pycocotools() -> None:
    try:
        import pycocotools.mask  # noqa: F401
    except ImportError as error:
        raise DataError(
            'COCO\'s outlines are filled by pycocotools, which is not installed: pip install "fsslib[coco]" (in a '
            'checkout: pip install -e ".[coco]"). It is needed once for each JSON.'
        ) from error


def read_instances(annotations: Path) -> tuple[dict[str, Picture], dict[int, int]]:
    """The images of a JSON by their id here, and the global class id of each of its categories.

    An id is the name of the file without ending; where files in two folders have one name, with the folders: "a__1".
    Numbers may be fractions like 80.0 or text, as data frames write them, and annotations without a number.

    Raises DataError when the file is cut short, lacks what an instances file has, lists an image or a category twice or
    a size that is none, or refers to an image or category that it does not list.
    """
    try:
        content = json.loads(annotations.read_bytes())
    except ValueError as error:
        raise DataError(
            f"{annotations} cannot be read ({error}). Most often such a file was cut short in copying or unpacking: "
            "delete it and restore it from the archive."
        ) from error
    try:
        class_ids = {entry["id"]: _class_id(entry["name"], annotations) for entry in content["categories"]}
        listed = {entry["id"]: _picture(entry) for entry in content["images"]}
        for number, entry in enumerate(content["annotations"], start=1):
            entry |= {"id": entry.get("id", f"no. {number}"), "iscrowd": float(entry.get("iscrowd") or 0)}
            for key, known in (("image_id", listed), ("category_id", class_ids)):
                if entry[key] not in known:
                    raise DataError(
                        f"{annotations}: annotation {entry['id']} has the {key} {entry[key]!r}, which the file does "
                        "not list. It was cut out of a larger one: restore it, or take the annotation out."
                    )
            listed[entry["image_id"]].objects.append(entry)
    except DataError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(
            f"{annotations} is no COCO file of instances ({type(error).__name__}: {error}): it should hold images, "
            "annotations and categories, each with the fields of instances_train2017.json."
        ) from error
    stems = Counter(Path(picture.file).stem for picture in listed.values())
    pictures = {}
    for picture in listed.values():
        path = Path(picture.file)
        pictures[path.stem if stems[path.stem] == 1 else path.with_suffix("").as_posix().replace("/", "__")] = picture
    for what, found in (("images", pictures), ("categories", class_ids)):
        if len(found) < len(content[what]):
            raise DataError(f"{annotations} lists {len(content[what])} {what}, only {len(found)} of them different.")
    return pictures, class_ids


def _picture(entry: Mapping[str, Any]) -> Picture:
    height, width = (float(entry[side]) for side in ("height", "width"))
    if not (height.is_integer() and width.is_integer() and height > 0 and width > 0):
        raise ValueError(f"{entry['file_name']} has {width:g} x {height:g} pixels")
    return Picture(entry["file_name"].replace("\\", "/"), int(height), int(width))


def _class_id(name: str, annotations: Path) -> int:
    try:
        return class_id(name.strip().lower())
    except KeyError as error:
        raise DataError(
            f"{annotations} has a category {name!r} without a global id. If it is another set's name for a class that "
            "has one, add it to ALIASES in fsslib/data/names.py, otherwise to the end of that file's names."
        ) from error


def paint(picture: Picture, class_ids: Mapping[int, int], on_top: str = "smaller") -> UInt8[np.ndarray, "H W"]:
    """The label map of an image: larger objects first, so that smaller ones lie on top; crowds as void.

    `on_top` "later" is the order of HSNet's label maps: that of the JSON, later objects over earlier ones. HSNet
    publishes these maps and not what painted them. That it paints so is told by its lists: of their 123 pairs in 39
    of 128 images of train2017, kept at 300 of 640 pixels, two disagree, and nine where smaller objects are on top
    (`test_hsnets_coco_lists_leave_small_objects_out`). Crowds are objects there, which is a guess, and so is PFENet's
    order.

    Raises ValueError naming the annotation whose outline cannot be filled, and for another `on_top`.
    """
    if on_top not in ("smaller", "later"):
        raise ValueError(f'on top lies the "smaller" or the "later" object; asked for {on_top!r}')
    shapes = []
    for entry in picture.objects:
        try:
            shape = fill(entry.get("segmentation"), picture.height, picture.width)
        # pycocotools raises several kinds, bare Exception among them.
        except Exception as error:
            raise ValueError(f"annotation {entry['id']}: {error}") from error
        void = entry.get("iscrowd") and on_top == "smaller"
        shapes.append((shape, VOID if void else class_ids[entry["category_id"]]))
    if on_top == "smaller":
        shapes.sort(key=lambda pair: -np.count_nonzero(pair[0]))
    labels = np.zeros((picture.height, picture.width), dtype=np.uint8)
    for shape, label in shapes:
        labels[shape] = label
    return labels


def fill(segmentation: Any, height: int, width: int) -> Bool[np.ndarray, "H W"]:
    """The pixels of an object: the union of its polygons, or its run lengths, as a list or in COCO's compressed text.

    A polygon of two corners encloses nothing. Raises ValueError for an object without an outline, one that reaches out
    of its image by more than a tenth or is in shares of it, polygons that are no lists of x, y, x, y, and run lengths
    for another size or cut short; pycocotools, which can hang on numbers that are none, raises its own for the rest.
    """
    from pycocotools import mask

    if not segmentation:
        raise ValueError("it has no outline, as in files that hold boxes only")
    if isinstance(segmentation, Mapping):
        counts, size = segmentation["counts"], [float(side) for side in segmentation["size"]]
        if size != [height, width]:
            raise ValueError(f"its run lengths are for {segmentation['size']}, its image is [{height}, {width}]")
        if isinstance(counts, str):
            found = mask.decode({"size": [height, width], "counts": counts})
            # Of text that was cut short pycocotools leaves the rest as memory was.
            if mask.encode(np.asfortranarray(found))["counts"].decode() != counts:
                raise ValueError("its run lengths are cut short, or not written as pycocotools does")
            return found.astype(bool)
        if sum(counts) != height * width or min(counts) < 0:
            raise ValueError(f"its run lengths cover {sum(counts)} pixels, not {height} x {width}")
        runs = {"size": [height, width], "counts": [*map(int, counts)]}
        return mask.decode(mask.frPyObjects(runs, height, width)).astype(bool)
    polygons = [np.asarray(polygon, dtype=float) for polygon in segmentation]
    if any(polygon.ndim != 1 for polygon in polygons) or all(polygon.size < 4 for polygon in polygons):
        raise ValueError("its outline is not a list of polygons, each a list of numbers: [[x, y, x, y, x, y]]")
    polygons = [polygon for polygon in polygons if polygon.size >= 6]
    for polygon in polygons:
        corners = polygon.reshape(-1, 2) / (width, height)
        if not (np.isfinite(corners) & (corners >= -0.1) & (corners <= 1.1)).all():
            raise ValueError(f"its polygon leaves the image of {width} x {height} pixels")
    if not polygons:
        return np.zeros((height, width), dtype=bool)
    if max(polygon.max() for polygon in polygons) <= 1.1:
        raise ValueError("its outline is in shares of the image, or lies in one corner of it: pixels are wanted")
    runs = mask.frPyObjects([polygon.tolist() for polygon in polygons], height, width)
    return mask.decode(mask.merge(runs)).astype(bool)

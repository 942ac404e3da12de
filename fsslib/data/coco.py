"""COCO: photographs in which the objects of 80 classes are outlined.

Expected below the data folder, as the archives unpack:

    coco/train2017/000000000009.jpg
    coco/annotations/instances_train2017.json

The outlines are painted once, into label maps that stay in a cache folder; that needs `pip install "fsslib[coco]"`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image
from tqdm import tqdm

from fsslib.data import cache
from fsslib.data.decode import DataError, refuse
from fsslib.data.layouts import Found, Place, missing
from fsslib.data.names import ALIASES, CLASS_IDS
from fsslib.episodes import VOID
from fsslib.files import make_once

RULE = 1
"""Number of the rule by which outlines become label maps: label maps in the cache that follow another are replaced."""

RESTORE = "Restore the JSON from its archive, or take the annotation out."

PARTS = ("train2017", "val2017", "train2014", "val2014")


def find_or_paint(found: Found, on_top: str) -> None:
    """Put the images of a part of COCO into `found`, with label maps that are painted if they are not there.

    All images of the JSON are there, those without an object too; an image's id is its file name without the ending,
    and names count from the part's folder or from the one around it ("train2017/1.jpg"). `on_top` is as in `paint`,
    each with label maps in a folder of its own. The class of a crowd is held by its image, and never large enough on
    account of the crowd.

    Label maps are painted when a JSON is first opened (10 ms an image: 20 minutes for train2017) into data/cache of the
    project, below it a folder named after the JSON's content: a changed JSON is painted anew. The folder appears whole
    or not at all, and processes that open the same JSON at once wait for one of them.

    Raises DataError for missing files, a JSON that is damaged or names an unknown image or class, outlines that cannot
    be filled, and a cache that cannot be written.
    """
    images = found.root / "coco" / found.part
    annotations = found.root / "coco" / "annotations" / f"instances_{found.part}.json"
    for needed in (images, annotations):
        if not needed.exists():
            raise missing("coco" if found.part == PARTS[0] else f"coco_{found.part}", needed, found.root)
    with annotations.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    order = "" if on_top == "smaller" else f"-{on_top}"
    label_maps = cache.cache_root() / f"coco-{found.part}-{sha256[:8]}{order}"
    try:
        manifest = make_once(
            label_maps,
            lambda folder: _manifest(folder, sha256),
            lambda empty: _paint_label_maps(annotations, empty, sha256, on_top),
        )
    except OSError as error:
        raise DataError(
            f"The label maps of {annotations} cannot be written to {label_maps} ({error}). Make room there."
        ) from error
    refuse(manifest["unpainted"], RESTORE)
    gone = {}
    for image_id, file in manifest["images"].items():
        path, around = images / file, images.parent / file
        path = around if not path.is_file() and around.is_file() else path
        if not path.is_file():
            gone[image_id] = f"{annotations} names an image for which {path} does not exist."
            continue
        held = tuple(manifest["crowds"].get(image_id, ()))
        found.files[image_id] = Place(found.layout, path, {"": label_maps / f"{image_id}.png"}, held)
    refuse(gone, "Unpack the archive of the images again, or take these images out of the JSON.")


@dataclass
class Picture:
    """An image of the JSON with what is annotated in it."""

    file: str
    height: int
    width: int
    objects: list[Mapping[str, Any]] = field(default_factory=list)


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
    )
    return manifest if whole else None


def _paint_label_maps(annotations: Path, folder: Path, sha256: str, on_top: str) -> None:
    try:
        import pycocotools.mask  # noqa: F401
    except ImportError as error:
        raise DataError(
            'COCO\'s outlines are filled by pycocotools, which is not installed: pip install "fsslib[coco]" (in a '
            'checkout: pip install -e ".[coco]"). It is needed once for each JSON.'
        ) from error
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
        "images": {image_id: picture.file for image_id, picture in pictures.items() if image_id not in unpainted},
        "unpainted": unpainted,
        "crowds": crowds,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def read_instances(annotations: Path) -> tuple[dict[str, Picture], dict[Any, int]]:
    """The images of a JSON by their id here, and the global class id of each of its categories.

    An id is the name of the file without folder and ending. Numbers may be fractions like 80.0 or text, as data frames
    write them, and annotations without a number.

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
        class_ids, listed = {}, {}
        for entry in content["categories"]:
            name = entry["name"].strip().lower()
            if (name := ALIASES.get(name, name)) not in CLASS_IDS:
                raise DataError(
                    f"{annotations} has a category {entry['name']!r} without a global id. If it is another set's name "
                    "for a class that has one, add it to ALIASES in fsslib/data/names.py, otherwise to the end of that "
                    "file's names."
                )
            class_ids[entry["id"]] = CLASS_IDS[name]
        for entry in content["images"]:
            height, width = (float(entry[side]) for side in ("height", "width"))
            if not (height.is_integer() and width.is_integer() and height > 0 and width > 0):
                raise ValueError(f"{entry['file_name']} has {width:g} x {height:g} pixels")
            listed[entry["id"]] = Picture(entry["file_name"].replace("\\", "/"), int(height), int(width))
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
    pictures = {Path(picture.file).stem: picture for picture in listed.values()}
    for what, found in (("images", pictures), ("categories", class_ids)):
        if len(found) < len(content[what]):
            raise DataError(
                f"{annotations} lists {len(content[what])} {what}, only {len(found)} of them different. Restore it."
            )
    return pictures, class_ids


def paint(picture: Picture, class_ids: Mapping[Any, int], on_top: str = "smaller") -> UInt8[np.ndarray, "H W"]:
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
    if not (polygons := [polygon for polygon in polygons if polygon.size >= 6]):
        return np.zeros((height, width), dtype=bool)
    corners = np.concatenate([polygon.reshape(-1, 2) for polygon in polygons])
    if not (np.isfinite(corners) & (corners / (width, height) >= -0.1) & (corners / (width, height) <= 1.1)).all():
        raise ValueError(f"its polygon leaves the image of {width} x {height} pixels")
    if corners.max() <= 1.1:
        raise ValueError("its outline is in shares of the image, or lies in one corner of it: pixels are wanted")
    runs = mask.frPyObjects([polygon.tolist() for polygon in polygons], height, width)
    return mask.decode(mask.merge(runs)).astype(bool)

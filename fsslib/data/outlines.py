"""Outlines in JSON as LabelMe and COCO write them, painted into a label map of one picture."""

import json
import math
import unicodedata
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int16

from fsslib.data.coco import fill
from fsslib.data.decode import DataError

VOID_CODE = -1
BACKGROUND = "_background_"
MEANT = {"_background_": BACKGROUND, "background": BACKGROUND, "__ignore__": None}
"""Labels that are no class, LabelMe's own among them; None is void."""

CORNERS = 72
"""Corners of the polygon that stands for a circle: its area is 0.1 % short."""


def read_outlines(
    path: Path, picture: Path, size: tuple[int, int]
) -> tuple[Int16[np.ndarray, "H W"], dict[int, str], list[str]]:
    """What a JSON outlines in one picture: 0 background, 1 and up the classes, -1 void; the classes' names; remarks.

    COCO's (a file for many pictures too; they are found by name, folders or none) and LabelMe's. Of two objects the
    smaller lies on top, and a crowd is void. `size`, height and width, counts where the file states none. COCO's and
    LabelMe's corners are both borders of pixels. Raises DataError for any other file, for a picture that it does not
    list or lists twice, and for shapes that enclose nothing.
    """
    content, remarks = _parsed(path, path.stat().st_mtime_ns), []
    try:
        if "shapes" in content:
            entry, sides, objects = content, ("imageHeight", "imageWidth"), list(_of_labelme(content))
        elif listed_in(path):
            entry, sides = _entry(content, path, picture), ("height", "width")
            objects = list(_of_coco(content, str(entry["id"])))
            outlined = [one for one in objects if one[1]] or objects
            if missing := len(objects) - len(outlined):
                remarks.append(f"{path.name} has {missing} without outline in {picture.name}: left out.")
            if outlined and all(name is None for name, _ in outlined):
                remarks.append(
                    f"{path.name} marks all of {picture.name} as crowds, which are void. CVAT does so with a brush: "
                    "set iscrowd to 0 where objects are meant."
                )
            objects = outlined
        else:
            raise DataError(f"{path} is neither LabelMe's nor COCO's JSON: it has no shapes, and no images.")
        size = tuple(int(entry.get(side) or n) for side, n in zip(sides, size))
        found = [(name, fill(outline, *size)) for name, outline in objects]
    except ImportError as error:
        raise DataError(f'{path}: outlines are filled by pycocotools: pip install "fsslib[coco]".') from error
    except DataError:
        raise
    except Exception as error:  # pycocotools raises several kinds, bare Exception among them
        raise DataError(f"{path}: an outline of {picture.name} cannot be filled ({error!r}). Draw it anew.") from error
    names = dict(enumerate(sorted({name for name, _ in found} - {None, BACKGROUND}), start=1))
    code = {name: number for number, name in names.items()} | {None: VOID_CODE, BACKGROUND: 0}
    painted = np.zeros(size, dtype=np.int16)
    for name, shape in sorted(found, key=lambda pair: -np.count_nonzero(pair[1])):
        painted[shape] = code[name]
    return painted, names, remarks


def key(name: str) -> str:
    """A name without what file systems change: capitals, and whether an accent is a character of its own."""
    return unicodedata.normalize("NFC", name).lower()


def listed_in(path: Path) -> list[str] | None:
    """The names of the pictures that a COCO JSON lists, without their folders; None for LabelMe's, none for others."""
    try:
        content = _parsed(path, path.stat().st_mtime_ns)
        if "shapes" in content:
            return None
        return [_parts(entry)[-1] for entry in content["images"]] if content["annotations"] is not None else []
    except (DataError, KeyError, TypeError):
        return []


@lru_cache(maxsize=4)
def _parsed(path: Path, changed: int) -> Any:
    """The content of a JSON; `changed` is when the file was, so that an edited one is read anew."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error}). Export it again, or leave it out.") from error


def _parts(entry: Mapping[str, Any]) -> list[str]:
    return str(entry["file_name"]).replace("\\", "/").split("/")


def _entry(content: Mapping[str, Any], path: Path, picture: Path) -> Mapping[str, Any]:
    """The image of a COCO JSON that is this picture: of several of one name the one in folders of the same names."""
    named = [entry for entry in content["images"] if key(_parts(entry)[-1]) == key(picture.name)]
    named = [entry for entry in named if _parts(entry)[-1] == picture.name] or named
    if len(named) > 1:
        folders = picture.resolve().parts
        named = [entry for entry in named if list(folders[-len(_parts(entry)) :]) == _parts(entry)]
    if len(named) != 1:
        known = ", ".join("/".join(_parts(entry)) for entry in content["images"][:5])
        how_often = "more than once" if named else "not"
        raise DataError(f"{path} lists {picture.name} {how_often}. It has {len(content['images'])} images: {known} ...")
    return named[0]


def _of_coco(content: Mapping[str, Any], image_id: str) -> Iterator[tuple[str | None, Any]]:
    """Name and outline of each object, the name None for a crowd. Some tools write ids, and 0 and 1, as text."""
    names = {str(category["id"]): category["name"] for category in content.get("categories", ())}
    for entry in (one for one in content["annotations"] if str(one["image_id"]) == image_id):
        crowd = str(entry.get("iscrowd")).lower() in ("1", "true")
        name = None if crowd else _class(names.get(str(entry["category_id"]), entry["category_id"]))
        yield name, entry.get("segmentation")


def _class(label: Any) -> str | None:
    return MEANT.get((name := str(label).strip()).lower(), name)


def _of_labelme(content: Mapping[str, Any]) -> Iterator[tuple[str | None, list[list[float]]]]:
    """Name and outline of each shape, all as polygons: x and y in turn."""
    for shape in content["shapes"]:
        kind, points = shape.get("shape_type") or "polygon", shape["points"]
        if kind == "rectangle" and len(points) == 2:
            (left, top), (right, bottom) = points
            points = [(left, top), (right, top), (right, bottom), (left, bottom)]
        elif kind == "circle":
            (x, y), rim = points
            radius, steps = math.dist((x, y), rim), np.arange(CORNERS) * 2 * math.pi / CORNERS
            points = [(x + radius * math.cos(step), y + radius * math.sin(step)) for step in steps]
        elif kind not in ("polygon", "rectangle") or len(points) < 3:
            raise DataError(
                f"The shape {shape['label']!r} is a {kind} of {len(points)} points, where a polygon, rectangle or "
                "circle is wanted. Draw a polygon around the object, or take the shape out."
            )
        yield _class(shape["label"]), [[float(value) for point in points for value in point]]

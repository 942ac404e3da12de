"""COCO's outlines, run lengths and crowds as label maps: painted right, painted once, and errors to act on. 5 s.

What COCO has in common with all data sets is tested in test_sets; the images are those drawn there.
"""

import json
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any
from unittest.mock import DEFAULT, Mock

import numpy as np
import pytest
from PIL import Image

from fsslib.data import coco
from fsslib.data.coco import fill
from fsslib.data.decode import DataError, noting
from fsslib.data.images import LabelledImageSet
from fsslib.data.layouts import find
from fsslib.data.names import class_id
from fsslib.data.sets import LAYOUTS, open_images
from fsslib.episodes import VOID
from fsslib.paths import data_root
from tests.data.trees import SIZE, Tree, draw_coco

pytest.importorskip("pycocotools")
from pycocotools import mask as coco_mask

PERSON, DOG, TV = (class_id(name) for name in ("person", "dog", "tv"))
FIRST, CROWDED, EMPTY = "000000000000", "000000000004", "000000000005"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr("fsslib.data.cache.cache_root", lambda: tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def tree(tmp_path) -> Tree:
    """Images with a dog, a television set on it and a person on that, one of them with a crowd; others with less."""
    return draw_coco(tmp_path)


def json_file(root: Path, part: str = "train2017") -> Path:
    return root / "coco" / "annotations" / f"instances_{part}.json"


def change(root: Path, edit: Callable[[dict[str, Any]], Any] | str) -> None:
    """Edit the JSON's content, or write this in its place."""
    if not isinstance(edit, str):
        edit(content := json.loads(json_file(root).read_text()))
    json_file(root).write_text(edit if isinstance(edit, str) else json.dumps(content))


def opened(root: Path, name: str = "coco", **more: Any) -> LabelledImageSet:
    return open_images(name, root=root, size=48, **more)


def shows(images: LabelledImageSet, labels: dict[str, np.ndarray]) -> bool:
    return images.ids == tuple(sorted(labels)) and all(np.array_equal(images.original(i)[1], labels[i]) for i in labels)


def box(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    found = np.zeros(SIZE, dtype=bool)
    found[top:bottom, left:right] = True
    return found


def outline(top: float, left: float, bottom: float, right: float) -> list[float]:
    """A rectangle as COCO's polygon: x, y of its corners."""
    return [left, top, right, top, right, bottom, left, bottom]


def run_lengths(found: np.ndarray) -> dict[str, Any]:
    """COCO's uncompressed run lengths: down the columns, a run of zeros first, if an empty one."""
    runs = [len([*run]) for _, run in groupby(found.T.flatten())]
    return {"size": [*found.shape], "counts": [0, *runs] if found[0, 0] else runs}


def compressed(found: np.ndarray) -> dict[str, Any]:
    encoded = coco_mask.encode(np.asfortranarray(found.astype(np.uint8)))
    return {"size": list(found.shape), "counts": encoded["counts"].decode()}


@pytest.mark.parametrize("encode", [run_lengths, compressed])
def test_run_lengths_of_any_shape_come_back(encode):
    rng = np.random.default_rng(1)
    for found in (rng.random((7, 11)) < 0.5, rng.random((11, 7)) < 0.9, np.ones((3, 5), bool), np.zeros((3, 5), bool)):
        assert np.array_equal(fill(encode(found), *found.shape), found)


def test_run_lengths_that_are_cut_short():
    whole = compressed(box(10, 10, 20, 30))
    for length in range(1, len(whole["counts"])):
        with pytest.raises(ValueError, match=r"cut short|Invalid RLE"):
            fill(whole | {"counts": whole["counts"][:length]}, *SIZE)


def crowd(**values: Any) -> Callable:
    return lambda content: [one.update(values) for one in content["annotations"] if one["iscrowd"]]


@pytest.mark.parametrize(("place", "on_top"), [((0, 0, 48, 64), False), ((32, 6, 38, 16), True)])
def test_a_crowd_is_void_on_larger_objects_and_below_smaller_ones(tree, tmp_path, place, on_top):
    change(tmp_path, crowd(segmentation=run_lengths(box(*place))))
    labels = tree.labels[CROWDED]
    labels[labels == VOID] = 0
    labels[box(*place) & (on_top | (labels == 0))] = VOID
    assert shows(opened(tmp_path), tree.labels)


def test_the_class_of_a_crowd_is_held_but_not_shown(tree, tmp_path):
    change(tmp_path, crowd(image_id=5, category_id=18))
    images = opened(tmp_path)
    assert (images.contents[EMPTY].held, images.contents[EMPTY].large) == ({DOG}, set())
    assert {EMPTY, *images.images_by_class[DOG]}.isdisjoint(images.without_classes([DOG]).ids)


def test_the_later_object_lies_on_top_of_an_equal_one_and_of_all_where_a_protocol_has_it_so(tree, tmp_path, cache):
    change(tmp_path, lambda content: content["annotations"][1].update(segmentation=[DOGS]))
    change(tmp_path, lambda content: content["annotations"].reverse())
    tree.labels[FIRST] = np.where(box(12, 24, 22, 34), PERSON, box(2, 4, 40, 40) * DOG)
    assert shows(opened(tmp_path), tree.labels)
    (painted,) = find(LAYOUTS["coco"], tmp_path, on_top="later").files[FIRST].labels.values()
    with Image.open(painted) as file:
        assert np.array_equal(file, box(2, 4, 40, 40) * DOG)
    assert shows(opened(tmp_path), tree.labels)


def test_parts_have_label_maps_of_their_own_and_what_is_missing_is_named(tree, tmp_path, cache):
    other = draw_coco(tmp_path, "val2014")
    images = opened(tmp_path, "coco_val2014")
    assert shows(images, tree.labels)
    assert images.files[FIRST].image == other.images[FIRST]
    assert [folder.name[:-9] for folder in cache.glob("coco-*/")] == ["coco-val2014"]
    json_file(tmp_path, "val2014").unlink()
    for part, lacking in (("val2014", json_file(tmp_path, "val2014")), ("val2017", tmp_path / "coco" / "val2017")):
        with pytest.raises(DataError, match=rf"there is no {lacking}\.\nTo get it: fsslib data get coco_{part}\."):
            opened(tmp_path, part=part)


def each(part: str, edit: Callable[[dict[str, Any]], Any]) -> Callable:
    """An edit of a JSON's content: `edit` for each entry of a part."""
    return lambda content: [edit(one) for one in content[part]]


def first(part: str, **values: Any) -> Callable:
    return lambda content: content[part][0].update(values)


def twice(part: str, **values: Any) -> Callable:
    return lambda content: content[part].append(content[part][0] | values)


IDS = ("id", "image_id", "category_id")


def numbers(kind: Callable[[int], Any], *keys: str) -> Callable:
    """Other numbers, or numbers written in another way, wherever the JSON has them."""
    return lambda content: [
        one.update({k: kind(one[k]) for k in keys if k in one}) for p in content for one in content[p]
    ]


DOGS, RUNS = outline(2, 4, 40, 40), run_lengths(box(2, 4, 40, 40))
SAME = {
    "fractions": numbers(float, *IDS, "width", "height", "iscrowd"),
    "text": numbers(lambda number: str(float(number)), *IDS, "width", "height", "iscrowd"),
    "category 0": numbers(lambda number: number - 18, *IDS),
    "annotation ids, areas": each("annotations", lambda one: one.update(id=len(str(one)), area=1.0)),
    "no word of crowds": each("annotations", lambda one: one["iscrowd"] or one.pop("iscrowd")),
    "in a folder": each("images", lambda one: one.update(file_name=f"train2017/{one['file_name']}")),
    "in a Windows folder": each("images", lambda one: one.update(file_name=f"train2017\\{one['file_name']}")),
    "titles": each("categories", lambda one: one.update(name=f" {one['name'].title()} ")),
    "smaller objects first": lambda content: content["annotations"].reverse(),
    "run lengths": first("annotations", segmentation={key: [*map(float, RUNS[key])] for key in RUNS}),
    "text run lengths": first("annotations", segmentation=compressed(box(2, 4, 40, 40))),
    "a text crowd": crowd(segmentation=compressed(box(0, 0, 48, 1))),
    "text polygon": first("annotations", segmentation=[[str(x) for x in DOGS]]),
    "in two parts": first("annotations", segmentation=[outline(2, 4, 40, 16), outline(2, 16, 40, 40)]),
    "too few corners": first("annotations", segmentation=[DOGS, [12, 12], [1, 1, 60, 45]]),
}


@pytest.mark.parametrize("kind", SAME)
def test_a_json_that_says_the_same_in_another_way_gives_the_same(tree, tmp_path, kind):
    change(tmp_path, SAME[kind])
    images = opened(tmp_path)
    assert shows(images, tree.labels)
    assert images.contents[CROWDED].held == {PERSON, DOG, TV}


CUT, NONE = "cannot be read .*cut short.*restore it", "is no COCO file of instances .*should hold"
FAULTS = {
    f".*{FIRST}.jpg has (0|nan|60.5) x 48 pixels": [first("images", width=n) for n in (0, float("nan"), 60.5)],
    f".*{FIRST}.jpg has 64 x -48 pixels": [first("images", height=-48)],
    ": the image is 64 x 48 pixels, its label map 65 x 48.* restore": [first("images", width=65)],
    CUT: ["", '{"images": [', "<html>404"],
    NONE: [
        *("[]", "{}", '{"categories": [{}]}', first("categories", name=None), first("annotations", iscrowd="no")),
        *(first("images", width="sixty"), first("images", width=None), first("images", file_name=9)),
    ],
    "lists . images, only . .* Restore": [twice("images"), twice("images", id=9)],
    "lists 9 images, only 8 .* Restore": [twice("images", id=9, file_name=f"b/{FIRST}.jpg")],
    "lists 4 categories, only 3 of them different. Restore": [twice("categories", name="cat")],
    "has a category ' Unicorn'.*ALIASES": [twice("categories", id=99, name=" Unicorn")],
    ": annotation no. 1 has the image_id 10, .* restore": [first("annotations", image_id=10)],
    ": annotation 7 has the category_id 2, .* restore": [first("annotations", category_id=2, id=7)],
    "names an image for which .*1.jpg does not exist.* Unpack": [first("images", file_name="val2017/1.jpg")],
}
CORNERS = [[10, 10], [30, 10], [30, 20]]
OUTLINES = {
    "it has no outline": [None, []],
    "its outline is not a list of polygons": [[[]], CORNERS, [CORNERS], DOGS],
    "its polygon leaves the image of 64 x 48": [
        *([[1, 1, None, 5, 9, 1]], [[1, 1, float("nan"), 5, 9, 1]]),
        *([outline(10, 10, 20, 71)], [DOGS, outline(10, -7, 20, 30)], [outline(10, 10, 53, 30)]),
    ],
    "its outline is in shares": [[outline(0.1, 0.1, 0.6, 0.6)], [outline(0.2, -0.01, 1, 1.01)]],
    "could not convert": [[["a", "b", "c", "d", "e", "f"]], compressed(box(2, 4, 40, 40))["counts"]],
    "cannot reshape": [[[1, 1, 5, 5, 9, 1, 2]]],
    r"its run lengths are for \[64, 48\], its image is \[48, 64\]": [{"size": [64, 48], "counts": [3072]}],
    "cover (550|3072.5|3072) pixels, not 48 x 64": [
        {"size": SIZE, "counts": counts} for counts in ([50, 500], [1536, 1536, 0.5], [3073, -1])
    ],
    "(its run lengths are cut short|RLE)": [{"size": SIZE, "counts": text} for text in ("", "~~~~zzzzPPPP")],
    "'size'": [{"counts": [3072]}],
}
FAULTS |= {
    f": {FIRST}.jpg cannot be painted: annotation no. 1: .*{said}.* Restore the JSON": [
        first("annotations", segmentation=shape) for shape in shapes
    ]
    for said, shapes in OUTLINES.items()
}


@pytest.mark.parametrize(("said", "edit"), [(said, edit) for said, edits in FAULTS.items() for edit in edits])
def test_a_json_that_would_be_read_wrong_is_refused(tree, tmp_path, said, edit):
    change(tmp_path, edit)
    with pytest.raises(DataError, match=rf"(instances_train2017\.json ?|{FIRST}\.png){said}"):
        opened(tmp_path)


def test_a_check_goes_on_without_the_outlines_that_cannot_be_filled(tree, tmp_path):
    change(tmp_path, first("annotations", segmentation=None))
    del tree.labels[FIRST]
    with noting() as noted:
        assert shows(opened(tmp_path), tree.labels)
    assert list(noted) == [FIRST]
    with pytest.raises(DataError, match="it has no outline"):
        opened(tmp_path)


def files_below(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.*") if path.is_file()}


def test_label_maps_are_painted_once_for_each_json_and_the_data_folder_is_left_alone(
    tree, tmp_path, cache, monkeypatch
):
    before = files_below(tmp_path)
    opened(tmp_path)
    painted = files_below(tmp_path)
    assert len(painted) == len(before) + len(tree.labels) + 2, "label maps, the manifest, the lock"
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "pycocotools", None)
        old = opened(tmp_path)
        assert files_below(tmp_path) == painted == painted | before
        change(tmp_path, lambda content: content["annotations"].pop(0))
        with pytest.raises(DataError, match=r'pip install "fsslib\[coco\]"'):
            opened(tmp_path)
    assert DOG not in opened(tmp_path).original(FIRST)[1]
    assert shows(old, tree.labels)


@pytest.mark.parametrize("damage", ["label map gone", "manifest cut", "rule", "sha256"])
def test_a_cache_that_is_not_whole_is_painted_anew(tree, tmp_path, damage):
    path = opened(tmp_path).files[FIRST].labels[""]
    manifest = path.with_name("manifest.json")
    Image.fromarray(np.zeros(SIZE, dtype=np.uint8)).save(path)
    if damage == "label map gone":
        path.unlink()
    elif damage == "manifest cut":
        manifest.write_bytes(manifest.read_bytes()[:50])
    else:
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {damage: 0}))
    assert shows(opened(tmp_path), tree.labels)


def test_painting_that_breaks_off_leaves_nothing_and_openings_at_the_same_time_paint_once(
    tree, tmp_path, cache, monkeypatch
):
    paint = Mock(wraps=coco.paint, side_effect=[DEFAULT, DEFAULT, KeyboardInterrupt])
    monkeypatch.setattr(coco, "paint", paint)
    with pytest.raises(KeyboardInterrupt):
        opened(tmp_path)
    assert not list(cache.glob("coco-*/"))
    paint.side_effect = None
    with ThreadPoolExecutor(3) as pool:
        assert all(shows(images, tree.labels) for images in pool.map(opened, [tmp_path] * 3))
    assert paint.call_count == 3 + len(tree.labels)
    assert not list(cache.glob(".*"))


def test_a_cache_that_cannot_be_written(tree, tmp_path, cache):
    cache.touch()
    with pytest.raises(DataError, match=r"cannot be written to .*cache.coco-train2017-\w{8} .*Make room there"):
        opened(tmp_path)


@pytest.mark.realdata
@pytest.mark.skipif(not os.environ.get("FSSLIB_DATA"), reason="FSSLIB_DATA is not set: no real images to read")
def test_the_coco_subset_is_all_there():
    images = open_images("coco")
    if len(images) != 128:
        pytest.skip(f"FSSLIB_DATA holds {len(images)} COCO images, not the subset of 128 these counts are of")
    pictures, class_ids = coco.read_instances(json_file(data_root()))
    assert (sum(len(picture.objects) for picture in pictures.values()), len(class_ids)) == (929, 80)
    assert sum(not classes.held for classes in images.contents.values()) == 2
    assert len(set().union(*(classes.held for classes in images.contents.values()))) == 71
    names = ("person", "diningtable", "chair", "cup", "dog")
    assert [len(images.images_by_class[class_id(name)]) for name in names] == [46, 9, 8, 7, 6]
    rows = images.sample(images.usable_classes(minimum_images=6), 12, ways=2, shots=2, presence_probability=1.0)
    assert images.episode(rows).presence.any(1).all()

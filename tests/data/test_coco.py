"""The COCO reader: outlines, run lengths and crowds as the right pixels, painted once, and errors to act on. 8 s."""

import json
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fsslib.data import coco
from fsslib.data.coco import Coco, fill
from fsslib.data.images import DataError, read_label_map
from fsslib.data.names import class_id
from fsslib.episodes import VOID, EpisodeRow

pytest.importorskip("pycocotools")
from pycocotools import mask as coco_mask

PERSON, CAR, DOG, TV, TRUCK = (class_id(name) for name in ("person", "car", "dog", "tv", "truck"))

# The ids have gaps, as COCO's have.
CATEGORIES = {1: "person", 3: "car", 8: "truck", 18: "dog", 72: "tv"}
HEIGHT, WIDTH = 45, 60


def box(top: int, left: int, bottom: int, right: int) -> list[float]:
    """A rectangle as COCO's polygon: x, y of its corners."""
    return [left, top, right, top, right, bottom, left, bottom]


def pixels(*boxes: tuple[int, int, int, int], height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    found = np.zeros((height, width), dtype=bool)
    for top, left, bottom, right in boxes:
        found[top:bottom, left:right] = True
    return found


def run_lengths(found: np.ndarray) -> dict[str, Any]:
    """COCO's uncompressed run lengths: down the columns, a run of zeros first, if an empty one."""
    flat = np.concatenate([[0], found.T.flatten().astype(int), [0]])
    edges = np.flatnonzero(np.diff(flat))
    counts = np.diff(np.concatenate([[0], edges, [found.size]])).tolist()
    return {"size": list(found.shape), "counts": counts if counts[-1] else counts[:-1]}


def compressed(found: np.ndarray) -> dict[str, Any]:
    encoded = coco_mask.encode(np.asfortranarray(found.astype(np.uint8)))
    return {"size": list(found.shape), "counts": encoded["counts"].decode()}


def entry(number: int, image_id: int, category: int, segmentation: Any, *, crowd: int = 0) -> dict[str, Any]:
    common = {"id": number, "image_id": image_id, "category_id": category, "iscrowd": crowd}
    return common | {"segmentation": segmentation, "area": 1.0, "bbox": [0, 0, 1, 1]}


def draw_coco(root: Path) -> Path:
    """Five images as COCO has them; returns `root`.

    9: a car in two parts with a dog (smaller, and earlier in the JSON) on it; 25: a grey JPEG with a crowd as a list of
    run lengths and one person of it outlined; 30: a suffix in capitals, a crowd in compressed text over part of a
    truck; 34: no annotation; 36: upright, with a television set and a dog.
    """
    (root / "coco" / "train2017").mkdir(parents=True)
    (root / "coco" / "annotations").mkdir()
    files = {9: "000000000009.jpg", 25: "000000000025.jpg", 30: "000000000030.JPG", 34: "000000000034.jpg"}
    images = [{"id": i, "file_name": file, "height": HEIGHT, "width": WIDTH} for i, file in files.items()]
    images.append({"id": 36, "file_name": "000000000036.jpg", "height": 61, "width": 47})
    rng = np.random.default_rng(0)
    for image in images:
        shape = (image["height"], image["width"]) + (() if image["id"] == 25 else (3,))
        picture = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))
        picture.save(root / "coco" / "train2017" / image["file_name"], format="JPEG")
    annotations = [
        entry(1, 9, 18, [box(10, 10, 20, 30)]),
        entry(2, 9, 3, [box(5, 5, 30, 25), box(5, 40, 30, 55)]),
        entry(3, 25, 1, run_lengths(pixels((4, 4, 40, 50))), crowd=1),
        entry(4, 25, 1, [box(10, 10, 30, 22)]),
        entry(5, 30, 8, [box(2, 2, 40, 50)]),
        entry(6, 30, 1, compressed(pixels((0, 40, 20, 60))), crowd=1),
        entry(7, 36, 72, [box(5, 5, 40, 40)]),
        entry(8, 36, 18, [box(45, 5, 60, 40), [1, 1, 3, 3]]),
    ]
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i, "name": name, "supercategory": ""} for i, name in CATEGORIES.items()],
    }
    json_file(root).write_text(json.dumps(content))
    return root


def json_file(root: Path) -> Path:
    return root / "coco" / "annotations" / "instances_train2017.json"


def change(root: Path, edit) -> None:
    """Apply `edit` to the JSON's content."""
    content = json.loads(json_file(root).read_text())
    edit(content)
    json_file(root).write_text(json.dumps(content))


@pytest.fixture
def tree(tmp_path) -> Path:
    return draw_coco(tmp_path / "data")


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Coco:
    """The five images, not to be changed."""
    folder = tmp_path_factory.mktemp("coco")
    return Coco(draw_coco(folder / "data"), size=48, keep_originals=True, cache=folder / "cache")


def labels(data: Coco, image_id: str) -> np.ndarray:
    return read_label_map(data.label_maps / f"{image_id}.png").numpy()


# Reading


def test_the_smaller_object_lies_on_top_and_parts_belong_together(shared):
    expected = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    expected[pixels((5, 5, 30, 25), (5, 40, 30, 55))] = CAR
    expected[pixels((10, 10, 20, 30))] = DOG
    assert np.array_equal(labels(shared, "000000000009"), expected)


def test_a_crowd_is_void_except_for_its_smaller_outlined_members(shared):
    expected = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    expected[pixels((4, 4, 40, 50))] = VOID
    expected[pixels((10, 10, 30, 22))] = PERSON
    assert np.array_equal(labels(shared, "000000000025"), expected)
    expected = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    expected[pixels((2, 2, 40, 50))] = TRUCK
    expected[pixels((0, 40, 20, 60))] = VOID
    assert np.array_equal(labels(shared, "000000000030"), expected)


def test_the_class_of_a_crowd_is_held_but_not_shown(shared):
    assert shared.contents["000000000030"].held == {TRUCK, PERSON}
    assert shared.contents["000000000030"].large == {TRUCK}
    assert shared.contents["000000000025"].large == {PERSON}
    assert set(shared.without_classes([PERSON]).ids) == {"000000000009", "000000000034", "000000000036"}


def test_every_image_of_the_json_is_there_with_or_without_objects(shared):
    assert len(shared) == 5
    assert not labels(shared, "000000000034").any()
    assert shared.contents["000000000034"].held == frozenset()


def test_categories_become_the_ids_that_all_sets_share(shared):
    assert shared.class_names == {
        PERSON: "person",
        CAR: "car",
        DOG: "dog",
        TV: "tvmonitor",
        TRUCK: "truck",
    }
    assert list(shared.class_names) == sorted(shared.class_names)
    assert (CAR, TV, TRUCK) == (7, 20, 21)
    assert shared.images_by_class[TV] == ("000000000036",)


def test_a_polygon_without_three_corners_encloses_nothing(shared):
    expected = np.zeros((61, 47), dtype=np.uint8)
    expected[pixels((5, 5, 40, 40), height=61, width=47)] = TV
    expected[pixels((45, 5, 60, 40), height=61, width=47)] = DOG
    assert np.array_equal(labels(shared, "000000000036"), expected)
    assert not fill([[1, 1, 3, 3]], 8, 8).any()


@pytest.mark.parametrize("encode", [run_lengths, compressed])
def test_run_lengths_of_any_shape_come_back(encode):
    rng = np.random.default_rng(1)
    for found in (rng.random((7, 11)) < 0.5, rng.random((11, 7)) < 0.9, np.ones((3, 5), bool), np.zeros((3, 5), bool)):
        assert np.array_equal(fill(encode(found), *found.shape), found)


def test_the_later_of_two_equal_objects_lies_on_top(tree, cache):
    def edit(content):
        content["annotations"] = [entry(1, 9, 18, [box(5, 5, 15, 15)]), entry(2, 9, 3, [box(5, 8, 15, 18)])]

    change(tree, edit)
    found = labels(Coco(tree, cache=cache), "000000000009")
    assert found[10, 6] == DOG
    assert (found[5:15, 8:18] == CAR).all()


def test_a_grey_photograph_becomes_rgb(shared):
    with Image.open(shared.folder / "000000000025.jpg") as file:
        assert file.mode == "L"
    image, found = shared._load("000000000025")
    assert image.shape == (3, HEIGHT, WIDTH)
    assert torch.equal(image[0], image[2])
    assert found.shape == (HEIGHT, WIDTH)


def test_episodes_hold_the_right_pixels(shared):
    row = EpisodeRow("000000000036", (DOG, CAR), (("000000000009",), ("000000000009",)))
    episode = shared.episode([row]).check_values()
    assert episode.domain == "photo"
    truth = torch.from_numpy(labels(shared, "000000000036"))
    assert torch.equal(episode.query_originals[0], (truth == DOG).long())
    assert episode.presence.tolist() == [[True, False]]
    assert shared.sample([DOG], 4, seed="1") == shared.sample([DOG], 4, seed="1")


# The cache


def files_below(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_label_maps_are_painted_once_and_the_data_folder_is_left_alone(tree, cache, monkeypatch):
    before = files_below(tree)
    first = Coco(tree, size=32, cache=cache)
    painted = files_below(cache)
    assert len(painted) == 5 + 1 + 1, "five label maps, the manifest, the lock"
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    again = Coco(tree, size=32, cache=cache)
    assert files_below(cache) == painted
    assert again.contents == first.contents
    assert again.class_names == first.class_names
    assert files_below(tree) == before


def test_a_changed_json_is_painted_anew_beside_the_old(tree, cache):
    first = Coco(tree, cache=cache)
    change(tree, lambda content: content["annotations"].pop(0))
    second = Coco(tree, cache=cache)
    assert first.label_maps != second.label_maps
    assert DOG in labels(first, "000000000009")
    assert DOG not in labels(second, "000000000009")


def test_the_default_cache_is_in_the_project(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(coco, "cache_root", lambda: tmp_path / "project" / "data" / "cache")
    monkeypatch.setenv("FSSLIB_DATA", str(tree))
    assert Coco().label_maps.parent == tmp_path / "project" / "data" / "cache"


@pytest.mark.parametrize("damage", ["label map gone", "manifest cut", "other rule", "other json"])
def test_a_cache_that_is_not_whole_is_painted_anew(tree, cache, damage, monkeypatch):
    data = Coco(tree, cache=cache)
    expected = labels(data, "000000000009")
    manifest = data.label_maps / "manifest.json"
    if damage == "label map gone":
        (data.label_maps / "000000000009.png").unlink()
    elif damage == "manifest cut":
        manifest.write_bytes(manifest.read_bytes()[:50])
    else:
        key, value = {"other rule": ("rule", coco.RULE - 1), "other json": ("sha256", "0" * 64)}[damage]
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {key: value}))
        Image.fromarray(np.zeros_like(expected)).save(data.label_maps / "000000000009.png")
    assert np.array_equal(labels(Coco(tree, cache=cache), "000000000009"), expected)


def test_painting_that_breaks_off_leaves_nothing_to_be_taken_for_whole(tree, cache, monkeypatch):
    paint, calls = coco.paint, []

    def breaks_off(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return paint(*arguments)

    monkeypatch.setattr(coco, "paint", breaks_off)
    with pytest.raises(KeyboardInterrupt):
        Coco(tree, cache=cache)
    assert not list(cache.glob("coco-*/"))
    assert len(Coco(tree, cache=cache)) == 5
    assert len(calls) == 3 + 5
    assert [path.name for path in cache.iterdir() if path.name.startswith(".")] == []


def test_openings_at_the_same_time_paint_once(tree, cache, monkeypatch):
    paint, calls = coco.paint, []
    monkeypatch.setattr(coco, "paint", lambda *arguments: calls.append(1) or paint(*arguments))
    with ThreadPoolExecutor(3) as pool:
        opened = list(pool.map(lambda _: Coco(tree, cache=cache), range(3)))
    assert len(calls) == 5
    assert opened[0].contents == opened[1].contents == opened[2].contents


def test_a_cache_that_cannot_be_written(tree, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot be written to .*file.*Coco\(cache=\.\.\.\)"):
        Coco(tree, cache=tmp_path / "file" / "cache")


# Errors


def test_without_data_the_message_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("FSSLIB_DATA", str(tmp_path / "empty"))
    with pytest.raises(DataError) as caught:
        Coco(part="val2014")
    for part in (str(tmp_path / "empty" / "coco" / "val2014"), "zips/val2014.zip", "annotations_trainval2014.zip"):
        assert part in str(caught.value)


def test_a_json_that_is_missing(tree, cache):
    json_file(tree).unlink()
    with pytest.raises(DataError, match=r"there is no .*instances_train2017\.json\.\nTo get it"):
        Coco(tree, cache=cache)


def test_without_pycocotools_the_message_names_the_extra(tree, cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(DataError, match=r'pip install "fsslib\[coco\]"'):
        Coco(tree, cache=cache)


@pytest.mark.parametrize("content", ["empty", "half", "text"])
def test_a_json_that_is_cut(tree, cache, content):
    whole = json_file(tree).read_bytes()
    json_file(tree).write_bytes({"empty": b"", "half": whole[: len(whole) // 2], "text": b"<html>404</html>"}[content])
    with pytest.raises(DataError, match=r"instances_train2017\.json cannot be read .*cut short.*restore it"):
        Coco(tree, cache=cache)


@pytest.mark.parametrize("content", [[], {}, {"images": [{}], "annotations": [], "categories": []}])
def test_a_json_of_another_kind(tree, cache, content):
    json_file(tree).write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"instances_train2017\.json is no COCO file of instances"):
        Coco(tree, cache=cache)


@pytest.mark.parametrize(("key", "value"), [("image_id", 10), ("category_id", 12)])
def test_an_annotation_of_an_unknown_image_or_category(tree, cache, key, value):
    change(tree, lambda content: content["annotations"][3].update({key: value}))
    with pytest.raises(DataError, match=rf"json: annotation 4 has the {key} {value}, which the file does not list"):
        Coco(tree, cache=cache)


def test_a_category_without_a_global_id(tree, cache):
    change(tree, lambda content: content["categories"].append({"id": 99, "name": "unicorn"}))
    with pytest.raises(DataError, match=r"json has a category 'unicorn'.*ALIASES"):
        Coco(tree, cache=cache)


# Files as other programs write them


def each(part: str, edit) -> Any:
    """An edit of a JSON's content: `edit` for each entry of a part."""
    return lambda content: [edit(entry) for entry in content[part]]


def rename(old: int, new: Any, *, images: bool = False) -> Any:
    """Another number for a category, or an image."""

    def edit(content):
        for entry in content["images" if images else "categories"]:
            entry["id"] = new if entry["id"] == old else entry["id"]
        key = "image_id" if images else "category_id"
        for entry in content["annotations"]:
            entry[key] = new if entry[key] == old else entry[key]

    return edit


def with_runs(encode, numbers=int) -> Any:
    """The dog, in run lengths."""

    def edit(content):
        runs = encode(pixels((10, 10, 20, 30)))
        if isinstance(runs["counts"], list):
            runs = {"size": [*map(numbers, runs["size"])], "counts": [*map(numbers, runs["counts"])]}
        content["annotations"][0]["segmentation"] = runs

    return edit


@pytest.mark.parametrize(
    "edit",
    [
        each("images", lambda entry: entry.update(width=float(entry["width"]), height=float(entry["height"]))),
        each("images", lambda entry: entry.update(width=str(entry["width"]), height=str(entry["height"]))),
        each("images", lambda entry: entry.update(file_name=f"train2017/{entry['file_name']}")),
        each("images", lambda entry: entry.update(file_name=f"train2017\\{entry['file_name']}")),
        each("images", lambda entry: entry.update(id=float(entry["id"]))),
        each(
            "annotations",
            lambda entry: entry.update(image_id=float(entry["image_id"]), category_id=float(entry["category_id"])),
        ),
        each("annotations", lambda entry: entry.pop("id")),
        each("annotations", lambda entry: entry.update(iscrowd=str(entry["iscrowd"]))),
        each("annotations", lambda entry: entry.update(iscrowd=float(entry["iscrowd"]))),
        each("annotations", lambda entry: entry.pop("area")),
        each("categories", lambda entry: entry.update(name=entry["name"].upper())),
        each("categories", lambda entry: entry.update(name=f" {entry['name'].title()} ")),
        rename(18, 0),
        rename(9, 0, images=True),
        rename(9, "nine", images=True),
        with_runs(run_lengths),
        with_runs(run_lengths, float),
        with_runs(compressed),
        lambda content: content["annotations"][0].update(segmentation=[[str(x) for x in box(10, 10, 20, 30)]]),
        lambda content: content["annotations"][0]["segmentation"].append([12, 12]),
    ],
    ids=[
        *("float sizes", "text sizes", "in a folder", "in a Windows folder", "float image ids", "float references"),
        *("no annotation ids", "text crowds", "float crowds", "no area", "capitals", "titles", "category 0", "image 0"),
        *("text image id", "run lengths", "float run lengths", "text run lengths", "text polygon", "a lonely point"),
    ],
)
def test_a_json_that_says_the_same_in_another_way_gives_the_same(tree, cache, shared, edit):
    change(tree, edit)
    data = Coco(tree, size=48, cache=cache)
    assert data.contents == shared.contents
    for image_id in shared.ids:
        assert np.array_equal(labels(data, image_id), labels(shared, image_id))
        assert torch.equal(data.original(image_id)[0], shared.original(image_id)[0])


SHARES = [[0.1, 0.1, 0.6, 0.1, 0.6, 0.6, 0.1, 0.6]]
CORNERS = [[10, 10], [30, 10], [30, 20], [10, 20]]


@pytest.mark.parametrize(
    ("part", "change_of", "message"),
    [
        ("images", {"width": 0}, r"000000000009\.jpg has 0 x 45 pixels"),
        ("images", {"height": -45}, r"000000000009\.jpg has 60 x -45 pixels"),
        ("images", {"width": 60.5}, r"000000000009\.jpg has 60\.5 x 45 pixels"),
        ("images", {"width": float("nan")}, "has nan x 45 pixels"),
        ("images", {"width": "sixty"}, "no COCO file of instances"),
        ("images", {"width": None}, "no COCO file of instances"),
        ("images", {"file_name": 9}, "no COCO file of instances"),
        ("images", {"file_name": "val2017/000000000009.jpg"}, r"train2017.val2017.000000000009\.jpg does not exist"),
        ("images", {"width": 45, "height": 60}, "its image is|leaves the image|is 60 x 45 pixels"),
        ("categories", {"name": None}, "no COCO file of instances"),
        ("annotations", {"iscrowd": "no"}, "no COCO file of instances"),
        ("annotations", {"segmentation": SHARES}, "in shares of the image"),
        ("annotations", {"segmentation": [[0.2, 0.3, 1.01, 0.3, 1.01, 1, -0.01, 1]]}, "in shares of the image"),
        ("annotations", {"segmentation": [[]]}, "not a list of polygons"),
        ("annotations", {"segmentation": CORNERS}, "not a list of polygons"),
        ("annotations", {"segmentation": [CORNERS]}, "not a list of polygons"),
        ("annotations", {"segmentation": box(10, 10, 20, 30)}, "not a list of polygons"),
        ("annotations", {"segmentation": compressed(pixels((10, 10, 20, 30)))["counts"]}, "annotation 1: could not"),
        ("annotations", {"segmentation": {"size": [45, 60], "counts": ""}}, "annotation 1: its run lengths"),
        ("annotations", {"segmentation": {"size": [45, 60], "counts": [1350, 1350, 0.5]}}, "cover 2700.5 pixels"),
    ],
)
def test_a_json_that_would_be_read_wrong_is_refused(tree, cache, part, change_of, message):
    change(tree, lambda content: content[part][0].update(change_of))
    with pytest.raises(DataError, match=message):
        Coco(tree, cache=cache)


def test_run_lengths_that_are_cut_short(tree, cache):
    whole = compressed(pixels((10, 10, 20, 30)))
    for length in range(1, len(whole["counts"])):
        with pytest.raises(ValueError, match=r"cut short|Invalid RLE"):
            fill(whole | {"counts": whole["counts"][:length]}, HEIGHT, WIDTH)


def test_two_folders_with_a_file_of_one_name(tree, cache):
    for name in ("a", "b"):
        (tree / "coco" / "train2017" / name).mkdir()
    new = {"000000000009.jpg": "a/1.jpg", "000000000034.jpg": "b/1.jpg"}
    for old, name in new.items():
        os.rename(tree / "coco" / "train2017" / old, tree / "coco" / "train2017" / name)
    change(tree, each("images", lambda entry: entry.update(file_name=new.get(entry["file_name"], entry["file_name"]))))
    data = Coco(tree, size=48, cache=cache)
    assert data.ids[-2:] == ("a__1", "b__1")
    assert DOG in labels(data, "a__1")
    assert not labels(data, "b__1").any()
    assert data.files_of("b__1")[0] == tree / "coco" / "train2017" / "b" / "1.jpg"
    assert Coco(tree, size=48, cache=cache).contents == data.contents


@pytest.mark.parametrize(
    ("part", "again"),
    [("images", {"id": 99}), ("images", {}), ("images", {"file_name": "other.jpg"}), ("categories", {"name": "cat"})],
)
def test_an_image_or_a_category_listed_twice(tree, cache, part, again):
    change(tree, lambda content: content[part].append(content[part][0] | again))
    with pytest.raises(DataError, match=rf"lists 6 {part}, only 5 of them different"):
        Coco(tree, cache=cache)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        (None, "no outline"),
        ([], "no outline"),
        ([[1, 1, None, 5, 9, 1]], "polygon"),
        ([[1, 1, float("nan"), 5, 9, 1]], "polygon"),
        ([[1, 1, 5, 5, 9, 1, 2]], "annotation 1: "),
        ([["a", "b", "c", "d", "e", "f"]], "annotation 1: "),
        ([box(10, 10, 20, 90)], "leaves the image of 60 x 45"),
        ({"size": [60, 45], "counts": [2700]}, r"for \[60, 45\], its image is \[45, 60\]"),
        ({"size": [45, 60], "counts": [50, 500]}, "cover 550 pixels, not 45 x 60"),
        ({"size": [45, 60], "counts": [2701, -1]}, "annotation 1: "),
        ({"size": [45, 60], "counts": "~~~~zzzzPPPP"}, "annotation 1: "),
        ({"counts": [2700]}, "annotation 1: 'size'"),
    ],
)
def test_an_outline_that_cannot_be_filled(tree, cache, segmentation, message):
    change(tree, lambda content: content["annotations"][0].update({"segmentation": segmentation}))
    with pytest.raises(DataError, match=r"json: 000000000009\.jpg cannot be painted: annotation 1: ") as caught:
        Coco(tree, cache=cache)
    assert caught.match(message)


def test_an_image_that_is_missing(tree, cache):
    for name in ("000000000009.jpg", "000000000034.jpg"):
        (tree / "coco" / "train2017" / name).unlink()
    with pytest.raises(DataError, match=r"json names an image for which .*000000000009\.jpg does not exist\. 1 more"):
        Coco(tree, cache=cache)


def test_an_image_of_another_size_than_in_the_json(tree, cache):
    shutil.copy(tree / "coco/train2017/000000000036.jpg", tree / "coco/train2017/000000000009.jpg")
    with pytest.raises(DataError, match=r"000000000009\.jpg is 47 x 61 pixels, but .*json says 60 x 45"):
        Coco(tree, cache=cache)


def test_a_truncated_image_is_named_when_used_and_by_the_check(tree, cache):
    path = tree / "coco" / "train2017" / "000000000009.jpg"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    data = Coco(tree, size=32, cache=cache)
    with pytest.raises(DataError, match=r"coco: damaged files: 1\.\n.*000000000009\.jpg cannot be read"):
        data.check()


# The real images


@pytest.fixture(scope="module")
def real(tmp_path_factory) -> Coco:
    if not os.environ.get("FSSLIB_DATA"):
        pytest.skip("FSSLIB_DATA is not set: no real images to read")
    return Coco(cache=tmp_path_factory.mktemp("cache"))


@pytest.mark.realdata
def test_the_coco_subset_is_all_there(real):
    if len(real) != 128:
        pytest.skip(f"FSSLIB_DATA holds {len(real)} COCO images, not the subset of 128 these counts are of")
    manifest = json.loads((real.label_maps / "manifest.json").read_text())
    assert (manifest["annotations"], len(manifest["classes"])) == (929, 80)
    assert sum(not classes.held for classes in real.contents.values()) == 2
    assert len(set().union(*(classes.held for classes in real.contents.values()))) == 71
    names = ("person", "diningtable", "chair", "cup", "dog")
    assert [len(real.images_by_class[class_id(name)]) for name in names] == [46, 9, 8, 7, 6]
    real.check()


@pytest.mark.realdata
def test_episodes_of_real_images_are_valid(real):
    classes = real.usable_classes(minimum_images=6)
    rows = real.sample(classes, 12, ways=2, shots=2, seed="0", presence_probability=0.7)
    episode = real.episode(rows).check_values()
    assert (episode.support_masks == 1).flatten(3).any(-1).all()

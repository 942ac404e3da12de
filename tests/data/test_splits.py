"""Folds and lists of the benchmarks, by rule and against the published ones. 2 s, and 10 s with real data."""

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fsslib.data import splits
from fsslib.data.coco import paint, read_instances
from fsslib.data.images import DataError, ImageClasses, LabelledImageSet
from fsslib.data.names import CLASS_IDS, CLASS_NAMES, class_id
from fsslib.data.splits import (
    BY_AREA,
    COCO_CLASSES,
    ON_GRID,
    PairRule,
    check_full,
    coco_fold,
    coco_label_maps,
    coco_to_pascal,
    differences,
    fss_part,
    image_list_text,
    label_maps,
    list_text,
    pairs_of,
    pascal_fold,
    read_pairs,
)

# Classes


def test_coco_has_eighty_classes_in_the_order_of_its_categories():
    assert len(set(COCO_CLASSES)) == 80
    assert set(COCO_CLASSES) == set(list(CLASS_IDS.values())[:80])
    for place, name in {
        0: "person",
        11: "stop sign",
        38: "tennis racket",
        60: "dining table",
        67: "cell phone",
    }.items():
        assert COCO_CLASSES[place] == class_id(name)


@pytest.mark.parametrize("rule", ["interleaved", "contiguous"])
def test_the_folds_part_the_classes(rule):
    assert sorted(c for fold in range(4) for c in coco_fold(fold, rule)) == sorted(COCO_CLASSES)
    assert sorted(c for fold in range(4) for c in pascal_fold(fold)) == list(range(1, 21))


def test_folds_of_coco_by_name():
    named = {
        (0, "interleaved"): ("person", "airplane", "boat", "refrigerator", "scissors"),
        (1, "interleaved"): ("bicycle", "bus", "traffic light", "book", "teddy bear"),
        (2, "interleaved"): ("car", "train", "fire hydrant", "clock", "hair drier"),
        (3, "interleaved"): ("motorcycle", "truck", "stop sign", "vase", "toothbrush"),
        (0, "contiguous"): ("person", "bicycle", "car", "sheep", "cow"),
        (3, "contiguous"): ("dining table", "toilet", "tv", "hair drier", "toothbrush"),
    }
    for (fold, rule), names in named.items():
        classes = coco_fold(fold, rule)
        assert (*classes[:3], *classes[-2:]) == tuple(map(class_id, names))
    assert all(len({*coco_fold(fold)} & {*coco_fold(fold, "contiguous")}) == 5 for fold in range(4))


def test_coco_to_pascal_tests_what_is_not_trained_on():
    expected = (
        "aeroplane boat chair diningtable dog person",
        "bicycle bus horse sofa",
        "bird car pottedplant sheep train tvmonitor",
        "bottle cat cow motorbike",
    )
    for fold, names in enumerate(expected):
        assert " ".join(CLASS_NAMES[c] for c in coco_to_pascal(fold)) == names
        assert not set(coco_to_pascal(fold)) & (set(COCO_CLASSES) - set(coco_fold(fold)))


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda: coco_fold(4), "COCO-20i has the folds 0, 1, 2 and 3; asked for 4"),
        (lambda: pascal_fold(-1), "PASCAL-5i has the folds"),
        (lambda: coco_fold(0, "random"), "interleaved and contiguous; asked for 'random'"),
        (lambda: fss_part("train"), "the parts trn, val, test; asked for 'train'"),
    ],
)
def test_folds_that_are_none(ask, said):
    with pytest.raises(DataError, match=said):
        ask()


def test_the_parts_of_fss_1000(monkeypatch):
    parts = {part: fss_part(part) for part in ("trn", "val", "test")}
    assert [len(classes) for classes in parts.values()] == [520, 240, 240]
    assert len({c for classes in parts.values() for c in classes.values()}) == 1000
    monkeypatch.setattr(splits, "class_list", lambda part: ("abacus", *list(parts["test"])[1:]))
    with pytest.raises(DataError, match=r"240 classes and the hash .* Restore data/splits/fss_1000/test.txt"):
        fss_part("test")


# Lists


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 140), st.integers(1, 140), st.integers(0, 10**6))
def test_the_grid_is_a_mask_shrunk_to_a_thirty_second(height, width, seed):
    # OSLSM pads by 15 pixels and to whole cells, and takes the pixel at the middle of each cell of 32.
    labels = np.random.default_rng(seed).choice([0, 3, 7, 255], (height, width)).astype(np.uint8)
    rows, columns = (-(-(side + 30) // 32) for side in labels.shape)
    padded = np.zeros((32 * rows, 32 * columns), dtype=np.uint8)
    padded[15 : 15 + height, 15 : 15 + width] = labels
    left = padded.reshape(rows, 32, columns, 32)[:, 16, :, 16]
    assert ON_GRID.classes(torch.from_numpy(labels)) == tuple(c for c in (3, 7) if (left == c).sum() > 2)


def test_areas_are_counted_without_background_and_void():
    labels = torch.zeros(100, 100, dtype=torch.uint8)
    labels[:64, :32], labels[:64, 32:64], labels[99, :] = 5, 6, 255
    labels[0, 32] = 0
    assert BY_AREA.counts(labels) == {5: 2048, 6: 2047}
    assert BY_AREA.classes(labels) == (5,)
    assert pairs_of([("b", labels), ("a", labels.T)], PairRule(1)) == (("a", 5), ("a", 6), ("b", 5), ("b", 6))


def test_label_maps_come_from_a_set_of_images():
    def load(_):
        return torch.zeros(3, 9, 8, dtype=torch.uint8), torch.full((9, 8), 4, dtype=torch.uint8)

    images = LabelledImageSet(
        {"x": ImageClasses(frozenset(), frozenset())}, load, {4: "boat"}, name="n", domain="d", size=8
    )
    assert pairs_of(label_maps(images), PairRule(72)) == (("x", 4),)


def test_later_objects_of_coco_lie_on_top(tmp_path):
    pytest.importorskip("pycocotools")
    square = {1: [0, 0, 40, 0, 40, 40, 0, 40], 2: [10, 10, 20, 10, 20, 20, 10, 20], 3: [0, 0, 50, 0, 50, 30, 0, 30]}
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 60, "width": 50}],
        "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "kite"}, {"id": 3, "name": "tv"}],
        "annotations": [
            {"id": k, "image_id": 1, "category_id": k, "segmentation": [outline]} for k, outline in square.items()
        ],
    }
    (tmp_path / "instances.json").write_text(json.dumps(content))
    ((image_id, labels),) = coco_label_maps(tmp_path / "instances.json")
    assert image_id == "a"
    assert PairRule(1).counts(labels) == {class_id("person"): 400, class_id("tv"): 1500}
    content["annotations"][1]["segmentation"] = []
    (tmp_path / "instances.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"instances.json: a.jpg, annotation 2: it has no outline"):
        list(coco_label_maps(tmp_path / "instances.json"))


def test_lists_are_sorted_text_and_read_back(tmp_path):
    pairs = (("2008_1", 2), ("2007_2", 10), ("2007_2", 1))
    assert list_text(pairs, "val") == "2007_2__01\n2007_2__10\n2008_1__02\n"
    assert list_text(pairs, "trn") == "2007_2__01\n2008_1__02\n2007_2__10\n"
    assert image_list_text(["b", "a"]) == (
        "JPEGImages/a.jpg SegmentationClassAug/a.png\nJPEGImages/b.jpg SegmentationClassAug/b.png\n"
    )
    path = tmp_path / "fold0.txt"
    path.write_bytes(list_text(pairs, "val").replace("\n", "\r\n").encode() + b"\r\n")
    assert read_pairs(path) == tuple(sorted(pairs))
    path.write_text("2007_2__01\n\n2007_2\n")
    with pytest.raises(DataError, match="line 3: '2007_2' is no pair"):
        read_pairs(path)


def test_differences_are_of_the_images_present():
    ours, published = [("a", 1), ("a", 2), ("c", 1)], [("a", 2), ("b", 1), ("d", 1)]
    assert differences(ours, published, {"a", "b"}) == ((("a", 1),), (("b", 1),))


def test_full_lists_are_held_against_the_published_counts():
    lists = [[(f"{k:05d}", 5 * fold + 1) for k in range(n)] for fold, n in enumerate((346, 451, 725, 346))]
    assert "equal byte for byte: folds none" in check_full(lists, "pascal", "val")
    with pytest.raises(DataError, match=r"\(346, 451, 725, 339\) pairs .* published are \(346, 451, 725, 346\)"):
        check_full([*lists[:3], lists[3][:-7]], "pascal", "val")


# The published lists, on the images at hand


def official(folder: str = "") -> Path:
    if not os.environ.get("FSSLIB_DATA"):
        pytest.skip("FSSLIB_DATA is not set: no real images to read")
    root = Path(os.environ["FSSLIB_DATA"])
    for needed in (root / "official_splits", root / folder):
        if not needed.is_dir():
            pytest.skip(f"no {needed.name} below FSSLIB_DATA")
    return root / "official_splits"


@pytest.mark.realdata
def test_the_published_lists_have_the_order_and_the_hash_of_ours():
    folder = official() / "pascal"
    for part in ("trn", "val"):
        lists = [read_pairs(folder / part / f"fold{fold}.txt") for fold in range(4)]
        assert check_full(lists, "pascal", part).endswith("equal byte for byte: folds [0, 1, 2, 3]")
        assert [{c for _, c in pairs} for pairs in lists] == [set(pascal_fold(fold)) for fold in range(4)]
    for part, name in (("trn", "trn"), ("val", "val"), ("test", "test"), ("test", "fss_test_set_official")):
        assert set((official() / "fss" / f"{name}.txt").read_text().split()) == set(fss_part(part))


def points_on_grid(labels: np.ndarray, c: int, shift: int = 0) -> tuple[int, int]:
    """The least and the most points of the grid that a class can have had before its map was shrunk, if it was."""
    scale = 500 / 320 if max(labels.shape) == 320 else 1
    near = np.pad(labels == c, 1, mode="edge")
    near = np.lib.stride_tricks.sliding_window_view(near, (3, 3))
    rows, columns = (
        np.minimum(np.arange(1 + shift, round(side * scale), 32) / scale, side - 1).astype(int) for side in labels.shape
    )
    at = near[np.ix_(rows, columns)]
    return int(at.all((2, 3)).sum()), int(at.any((2, 3)).sum())


@pytest.mark.realdata
def test_the_unwritten_rule_of_hsnets_pascal_lists():
    """On VOC images kept at 320 of 500 pixels: the grid agrees with every pair it decides; a shifted one does not."""
    folder = official("VOCdevkit").parent / "VOCdevkit" / "VOC2012" / "SegmentationClassAug"
    lists = official() / "pascal"
    listed = {pair for part in ("trn", "val") for k in range(4) for pair in read_pairs(lists / part / f"fold{k}.txt")}
    maps = {path.stem: np.asarray(Image.open(path)) for path in folder.glob("*.png")}
    if len(maps) != 566:
        pytest.skip(f"FSSLIB_DATA holds {len(maps)} VOC images, not the subset of 566 these counts are of")
    pairs = pairs_of(((i, torch.tensor(labels)) for i, labels in maps.items()), PairRule(1))
    missing, extra = differences(pairs, listed, maps.keys())
    assert (len(pairs), len(missing), len(extra)) == (1104, 74, 0)
    wrong, open_ = {}, {}
    for shift in (0, 16):
        bounds = {pair: points_on_grid(maps[pair[0]], pair[1], shift) for pair in pairs}
        wrong[shift] = sum(low > 2 if pair in missing else high <= 2 for pair, (low, high) in bounds.items())
        open_[shift] = sum(low <= 2 < high for low, high in bounds.values())
    assert (wrong[0], open_[0]) == (0, 43)
    assert wrong[16] == 22


@pytest.mark.realdata
def test_hsnets_coco_lists_leave_small_objects_out():
    """Of the COCO images at hand, kept at 300 of 640 pixels: 2,048 pixels of a full image are 450 there."""
    pytest.importorskip("pycocotools")
    folder = official("coco")
    listed = set()
    for fold in range(4):
        content = json.loads(gzip.decompress((folder / "coco" / "val" / f"fold{fold}.json.gz").read_bytes()))
        listed |= {(Path(i).stem[-12:], COCO_CLASSES[int(place)]) for place, ids in content.items() for i in ids}
    assert len(listed) == sum(splits.PUBLISHED_PAIRS["coco", "val"])
    maps = dict(coco_label_maps(folder.parent / "coco" / "annotations" / "instances_train2017.json"))
    if len(maps) != 128:
        pytest.skip(f"FSSLIB_DATA holds {len(maps)} COCO images, not the subset of 128 these counts are of")
    there = {i for i, _ in listed} & maps.keys()
    any_pixel = differences(pairs_of(maps.items(), PairRule(1)), listed, there)
    large = differences(pairs_of(maps.items(), PairRule(450)), listed, there)
    assert (len(there), len(any_pixel[0]), len(any_pixel[1])) == (39, 39, 0)
    assert len(large[0]) + len(large[1]) == 2
    pictures, ids = read_instances(folder.parent / "coco" / "annotations" / "instances_train2017.json")
    ours = ((i, torch.from_numpy(paint(picture, ids))) for i, picture in pictures.items())
    assert sum(map(len, differences(pairs_of(ours, PairRule(450)), listed, there))) == 9, "so later objects lie on top"

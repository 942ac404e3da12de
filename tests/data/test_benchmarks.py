"""Benchmarks as their papers cut them: folds, frozen episodes, and the published lists behind them. 5 s."""

import gzip
import hashlib
import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from fsslib.data.benchmarks import LARGE, areas, coco_fold, frozen, pascal_fold, pfenet, present
from fsslib.data.coco import paint, read_instances
from fsslib.data.decode import DataError
from fsslib.data.names import CLASS_IDS, COCO_CLASSES, class_id, fss_1000
from fsslib.episodes import EpisodeManifest, EpisodeRow
from tests.data.hsnet_lists import (
    differences,
    hsnet_coco,
    hsnet_pascal,
    large_classes,
    read_pairs,
)

AREAS = {
    f"{k:03d}": {c: pixels for c, pixels in ((1, 5000), (2, 2048 if k % 2 else 2047), (9, 9000)) if (k + c) % 3}
    for k in range(24)
}


def numpy_draw(items):
    return np.random.choice(items, 1, replace=False)[0]  # noqa: NPY002, the released code's own call


def numpy_supports(query, pool, shots):
    drawn = (str(numpy_draw(pool)) for _ in iter(int, 1))
    kept = (i for i in drawn if i != query)
    return tuple(next(kept) for _ in range(shots))


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


def test_the_folds_part_the_classes():
    assert sorted(c for fold in range(4) for c in coco_fold(fold)) == sorted(COCO_CLASSES)
    assert [pascal_fold(fold) for fold in range(4)] == [tuple(range(c, c + 5)) for c in (1, 6, 11, 16)]
    named = (
        ("person", "airplane", "boat", "refrigerator", "scissors"),
        ("bicycle", "bus", "traffic light", "book", "teddy bear"),
        ("car", "train", "fire hydrant", "clock", "hair drier"),
        ("motorcycle", "truck", "stop sign", "vase", "toothbrush"),
    )
    for fold, names in enumerate(named):
        classes = coco_fold(fold)
        assert (*classes[:3], *classes[-2:]) == tuple(map(class_id, names))
    for ask, bad, benchmark in ((coco_fold, 4, "COCO-20i"), (pascal_fold, -1, "PASCAL-5i")):
        with pytest.raises(DataError, match=f"{benchmark} has the folds 0, 1, 2 and 3; asked for {bad}"):
            ask(bad)


FSS_SHA256 = {
    "trn": "4e236fa8eda2543a988f734f8ea728a6f321bb426ec79cc121c5f4f115f41f10",
    "val": "bae6fbf5aa020ce4e589b76c51da21cc9b77970877579612e0a0d3c4b43688b0",
    "test": "0efbe526c0dd445b580de07cae179df51fffc91255599e96b13d8b16e7e04c0c",
}


def test_the_parts_of_fss_1000_are_the_published_ones():
    parts = {part: sorted(fss_1000(part)) for part in FSS_SHA256}
    assert [len(folders) for folders in parts.values()] == [520, 240, 240]
    for part, folders in parts.items():
        assert hashlib.sha256("".join(f"{name}\n" for name in folders).encode()).hexdigest() == FSS_SHA256[part]
    together = fss_1000()
    assert together.items() == {**fss_1000("trn"), **fss_1000("val"), **fss_1000("test")}.items()
    ids = [class_id(name) for name in together.values()]
    assert ids == sorted(ids)
    assert len(set(ids)) == 1000
    # Shared names have the ids of all sets, by name or alias; its mouse is the animal; its own have their place.
    for folder, number in (("diver", 15), ("computer_mouse", class_id("mouse")), ("abacus", 2002), ("mouse", 2567)):
        assert class_id(together[folder]) == number


# Episodes


@pytest.mark.parametrize("shots", [1, 5])
def test_the_frozen_episodes_of_fss_1000_are_draws_of_numpys_global_generator(shots):
    manifest, test = frozen("fss_1000", "hsnet", shots=shots), fss_1000("test")
    # Classes and file names in the order of text: 1, 10, 2 ...
    assert [row.query for row in manifest.rows] == [f"{c}/{k}" for c in sorted(test) for k in ("1", "10", *"23456789")]
    np.random.seed(0)  # noqa: NPY002
    for row in manifest.rows:
        name, _ = row.query.split("/")
        assert row.classes == (class_id(test[name]),)
        assert row.supports == (numpy_supports(row.query, [f"{name}/{k}" for k in range(1, 11)], shots),)


def test_pfenets_queries_walk_the_list_and_supports_are_large_and_distinct():
    manifest = pfenet(AREAS, (1, 2), shots=3, episodes=400, data="drawn")
    large = {c: {i for i, found in AREAS.items() if found.get(c, 0) >= 2048} for c in (1, 2)}
    queries = [i for i in AREAS if i in large[1] | large[2]]
    assert [row.query for row in manifest.rows] == [queries[n % len(queries)] for n in range(400)]
    chosen = Counter()
    for row in manifest.rows:
        (c,), (supports,) = row.classes, row.supports
        chosen[c, c in AREAS[row.query] and row.query in large[c]] += 1
        assert c in AREAS[row.query]
        assert set(supports) <= large[c] - {row.query}
        assert len(set(supports)) == 3
        assert not row.repeats
    # A class too small to be a support is asked for where another class brought the image into the list.
    assert set(chosen) == {(1, True), (2, True), (2, False)}
    assert manifest.about == {"data": "drawn", "protocol": "pfenet", "ways": "1", "shots": "3", "seed": "321"}


def test_pfenets_episodes_are_a_function_of_their_arguments():
    first, again, other = (pfenet(AREAS, (1, 2), shots=1, episodes=90, seed=seed) for seed in (321, 321, 322))
    assert first.sha256 == again.sha256 != other.sha256
    # Fixed: drawn from `random()` alone, so that no version of Python or NumPy changes it.
    assert first.sha256.startswith("244d17da47fc")


def test_pfenet_without_images():
    with pytest.raises(
        DataError, match=r"None of these 24 images shows one of the classes \(4,\) at 2,048 pixels or more"
    ):
        pfenet(AREAS, (4,), shots=1, episodes=1)
    with pytest.raises(DataError, match="16 supports for '000' cannot be drawn from the 16 images"):
        pfenet(AREAS, (1,), shots=16, episodes=1)


@pytest.mark.parametrize("fold", range(4))
@pytest.mark.parametrize("shots", [1, 5])
@pytest.mark.parametrize(("data", "classes"), [("pascal", pascal_fold), ("coco", coco_fold)])
def test_frozen_episodes_are_of_their_fold(data, classes, shots, fold):
    manifest = frozen(data, "hsnet", shots=shots, fold=fold)
    assert len(manifest.rows) == 1000
    assert {c for row in manifest.rows for c in row.classes} == set(classes(fold))
    assert {len(way) for row in manifest.rows for way in row.supports} == {shots}
    assert manifest.about.items() >= {"protocol": "hsnet", "fold": str(fold), "seed": "0"}.items()
    repeated = sum(len(set(way)) < shots for row in manifest.rows for way in row.supports)
    assert (repeated > 0) == (shots == 5) == manifest.rows[0].repeats


def test_asking_for_episodes_that_are_not_there():
    with pytest.raises(DataError, match=r"No frozen episodes pascal-fold0-1way-1shot-pfenet.txt; .*benchmarks.pfenet"):
        frozen("pascal", "pfenet", shots=1, fold=0)


def test_episodes_whose_images_are_present():
    manifest = EpisodeManifest(tuple(EpisodeRow(q, (1,), (tuple(s),)) for q, s in ("ab", "bc", "ca")), {"data": "x"})
    some = present(manifest, ["a", "b"])
    assert some.rows == manifest.rows[:1]
    assert some.about == {"data": "x", "present": "1 of 3 episodes"}
    assert present(manifest, "abc").rows == manifest.rows
    with pytest.raises(DataError, match=r"None of the 3 episodes has all its images among these 2; .* 'a'"):
        present(manifest, ["a", "z"])


# The published lists


def test_areas_are_counted_without_background_and_void():
    labels = torch.zeros(100, 100, dtype=torch.uint8)
    labels[:64, :32], labels[:64, 32:64], labels[99, :] = 5, 6, 255
    labels[0, 32] = 0
    assert areas(labels) == {5: 2048, 6: 2047}
    assert large_classes(labels, LARGE) == (5,)


def official(folder: str = "") -> Path:
    if not os.environ.get("FSSLIB_DATA"):
        pytest.skip("FSSLIB_DATA is not set: no real images to read")
    root = Path(os.environ["FSSLIB_DATA"])
    for needed in (root / "official_splits", root / folder):
        if not needed.is_dir():
            pytest.skip(f"no {needed.name} below FSSLIB_DATA")
    return root / "official_splits"


@pytest.mark.realdata
def test_the_published_lists_are_of_their_folds():
    folder = official() / "pascal"
    for part in ("trn", "val"):
        lists = [read_pairs(folder / part / f"fold{fold}.txt") for fold in range(4)]
        assert [{c for _, c in pairs} for pairs in lists] == [set(pascal_fold(fold)) for fold in range(4)]
    for part, name in (("trn", "trn"), ("val", "val"), ("test", "test"), ("test", "fss_test_set_official")):
        assert set((official() / "fss" / f"{name}.txt").read_text().split()) == set(fss_1000(part))


@pytest.mark.realdata
def test_hsnets_coco_lists_leave_small_objects_out():
    """Of the COCO images at hand, kept at 300 of 640 pixels: 2,048 pixels of a full image are 450 there."""
    pytest.importorskip("pycocotools")
    folder = official("coco")
    listed = set()
    for fold in range(4):
        content = json.loads(gzip.decompress((folder / "coco" / "val" / f"fold{fold}.json.gz").read_bytes()))
        listed |= {(Path(i).stem[-12:], COCO_CLASSES[int(place)]) for place, ids in content.items() for i in ids}
    pictures, ids = read_instances(folder.parent / "coco" / "annotations" / "instances_train2017.json")

    def pairs_of(minimum: int, on_top: str = "later") -> list[tuple[str, int]]:
        maps = ((i, torch.from_numpy(paint(picture, ids, on_top))) for i, picture in pictures.items())
        return [(i, c) for i, labels in maps for c in large_classes(labels, minimum)]

    if len(pictures) != 128:
        pytest.skip(f"FSSLIB_DATA holds {len(pictures)} COCO images, not the subset of 128 these counts are of")
    there = {i for i, _ in listed} & pictures.keys()
    any_pixel, large = (differences(pairs_of(minimum), listed, there) for minimum in (1, 450))
    assert (len(there), len(any_pixel[0]), len(any_pixel[1])) == (39, 39, 0)
    assert len(large[0]) + len(large[1]) == 2
    assert sum(map(len, differences(pairs_of(450, "smaller"), listed, there))) == 9, "so later objects lie on top"


@pytest.mark.realdata
@pytest.mark.parametrize("fold", range(4))
@pytest.mark.parametrize("shots", [1, 5])
def test_the_frozen_episodes_are_those_of_the_published_lists(shots, fold):
    folder = official()
    pairs = read_pairs(folder / "pascal" / "val" / f"fold{fold}.txt")
    assert hsnet_pascal(pairs, fold=fold, shots=shots) == frozen("pascal", "hsnet", shots=shots, fold=fold)
    lists = json.loads(gzip.decompress((folder / "coco" / "val" / f"fold{fold}.json.gz").read_bytes()))
    images = [[Path(i).stem for i in lists[str(number)]] for number in range(80)]
    assert hsnet_coco(images, fold=fold, shots=shots) == frozen("coco", "hsnet", shots=shots, fold=fold)

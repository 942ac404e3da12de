"""Frozen test episodes: HSNet's and PFENet's sampling rules, and the files that come with fsslib. 2 s."""

import gzip
import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsslib.data.fss1000 import class_ids
from fsslib.data.images import DataError
from fsslib.data.manifests import frozen, hsnet_coco, hsnet_fss, hsnet_pascal, pfenet, present
from fsslib.data.splits import COCO_CLASSES, coco_fold, pascal_fold, read_pairs
from fsslib.episodes import EpisodeManifest, EpisodeRow

PASCAL = [(f"2007_{k:06d}", 1 + k % 5) for k in range(40)]
COCO = [[f"image{n}-{k}" for k in range(2 + n % 7)] for n in range(80)]
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


# Against the global generator of NumPy, as HSNet uses it


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 60))
def test_hsnets_pascal_episodes_are_draws_of_numpys_global_generator(seed, shots, episodes):
    rows = hsnet_pascal(PASCAL, fold=0, shots=shots, episodes=episodes, seed=seed).rows
    np.random.seed(seed)  # noqa: NPY002
    for n, row in enumerate(rows):
        query, c = PASCAL[n % len(PASCAL)]
        pool = [i for i, of in PASCAL if of == c]
        assert (row.query, row.classes, row.supports) == (query, (c,), (numpy_supports(query, pool, shots),))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(0, 3))
def test_hsnets_coco_episodes_too(seed, shots, fold):
    rows = hsnet_coco(COCO, fold=fold, shots=shots, episodes=25, seed=seed).rows
    np.random.seed(seed)  # noqa: NPY002
    for row in rows:
        number = numpy_draw([fold + 4 * v for v in range(20)])
        query = str(numpy_draw(COCO[number]))
        assert (row.query, row.classes) == (query, (COCO_CLASSES[number],))
        assert row.supports == (numpy_supports(query, COCO[number], shots),)


@pytest.mark.parametrize("shots", [1, 5])
def test_the_frozen_episodes_of_fss_1000_are_drawn_the_same_way(shots):
    manifest, test = hsnet_fss(shots=shots), class_ids("test")
    assert manifest.rows == frozen("fss_1000", "hsnet", shots=shots).rows
    assert len(manifest.rows) == 2400
    assert [row.query.split("/")[1] for row in manifest.rows[:10]] == ["1", "10", *"23456789"]
    np.random.seed(0)  # noqa: NPY002
    for row in manifest.rows:
        name, _ = row.query.split("/")
        assert row.classes == (test[name],)
        assert row.supports == (numpy_supports(row.query, [f"{name}/{k}" for k in range(1, 11)], shots),)


def test_hsnet_without_images():
    with pytest.raises(DataError, match=r"None of the pairs is of a class of fold 1 of PASCAL-5i: \[6, 7, 8, 9, 10\]"):
        hsnet_pascal(PASCAL, fold=1, shots=1)
    with pytest.raises(DataError, match="1 supports for 'a' cannot be drawn from the 1 images of its class"):
        hsnet_pascal([("a", 1)], fold=0, shots=1)
    with pytest.raises(DataError, match="no image to draw a query from"):
        hsnet_coco([[]] * 80, fold=0, shots=1)


# PFENet's rule


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


# The files


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
    with pytest.raises(DataError, match=r"No frozen episodes pascal-fold0-1way-1shot-pfenet.txt; .*manifests.pfenet"):
        frozen("pascal", "pfenet", shots=1, fold=0)


def test_episodes_whose_images_are_present():
    manifest = EpisodeManifest(tuple(EpisodeRow(q, (1,), (tuple(s),)) for q, s in ("ab", "bc", "ca")), {"data": "x"})
    some = present(manifest, ["a", "b"])
    assert some.rows == manifest.rows[:1]
    assert some.about == {"data": "x", "present": "1 of 3 episodes"}
    assert present(manifest, "abc").rows == manifest.rows
    with pytest.raises(DataError, match=r"None of the 3 episodes has all its images among these 2; .* 'a'"):
        present(manifest, ["a", "z"])


@pytest.mark.realdata
@pytest.mark.parametrize("fold", range(4))
@pytest.mark.parametrize("shots", [1, 5])
def test_the_frozen_episodes_are_those_of_the_published_lists(shots, fold):
    if not os.environ.get("FSSLIB_DATA"):
        pytest.skip("FSSLIB_DATA is not set: no published lists")
    folder = Path(os.environ["FSSLIB_DATA"]) / "official_splits"
    if not folder.is_dir():
        pytest.skip("no official_splits below FSSLIB_DATA")
    pairs = read_pairs(folder / "pascal" / "val" / f"fold{fold}.txt")
    assert hsnet_pascal(pairs, fold=fold, shots=shots) == frozen("pascal", "hsnet", shots=shots, fold=fold)
    lists = json.loads(gzip.decompress((folder / "coco" / "val" / f"fold{fold}.json.gz").read_bytes()))
    images = [[Path(i).stem for i in lists[str(number)]] for number in range(80)]
    assert hsnet_coco(images, fold=fold, shots=shots) == frozen("coco", "hsnet", shots=shots, fold=fold)

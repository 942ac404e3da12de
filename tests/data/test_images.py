"""The one set of images: episodes, batches, subsets, joined sets, and what a protocol makes of them. 8 s."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fsslib.data import images as images_module
from fsslib.data.decode import DataError, resize_image, resize_labels
from fsslib.data.images import ImageClasses, classes_in
from fsslib.data.names import class_id
from fsslib.data.sets import joined, open_images
from fsslib.episodes import VOID, EpisodeRow, EpisodeSource, SegmentationSource, sample_rows
from fsslib.protocols import protocol_named
from tests.data.made import Made, halves
from tests.data.trees import draw_camvid, draw_coco, draw_fss, draw_pascal, draw_tiles

CAR, CAT, DOG = 7, 8, 12
NAMES = {CAR: "car", CAT: "cat", DOG: "dog"}

any_question = given(
    ways=st.integers(1, 3),
    shots=st.integers(1, 3),
    presence=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 10**6),
)


# What an image shows


def test_the_least_share_counts_at_the_original_size_and_void_does_not():
    labels = torch.zeros(100, 100, dtype=torch.uint8)
    labels[:2], labels[2:4, :99], labels[50:] = 5, 6, VOID
    shown = classes_in(labels, 50)
    assert shown == ImageClasses(frozenset({5, 6}), frozenset({5}))
    assert classes_in(labels, 300) == shown
    assert classes_in(labels.to(torch.int16) + 2000 * (labels == 5), 50).large == {2005}


def test_a_class_that_vanishes_in_the_resize_is_never_drawn():
    labels = torch.zeros(100, 100, dtype=torch.uint8)
    labels[:, ::50] = 3  # two columns of one pixel, which a grid of 4 x 4 misses
    assert classes_in(labels, 100).large == {3}
    assert classes_in(labels, 4) == ImageClasses(frozenset({3}), frozenset())


# Resizing


@pytest.mark.parametrize(("down", "across"), [(3, 5), (5, 1), (1, 7), (9, 3)])
@pytest.mark.parametrize("kind", [torch.uint8, torch.int16])
def test_the_resize_takes_the_label_at_each_pixels_centre(down, across, kind):
    labels = torch.randint(0, 19, (down * 8, across * 6), generator=torch.Generator().manual_seed(0)).to(kind)
    labels = labels + 2900 if kind == torch.int16 else labels
    small = resize_labels(labels, (8, 6))
    assert small.dtype == kind
    assert torch.equal(small, labels[down // 2 :: down, across // 2 :: across])


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(20, 90),
    width=st.integers(20, 90),
    size=st.tuples(st.integers(12, 60), st.integers(12, 60)),
    seed=st.integers(0, 1000),
)
def test_labels_stay_on_their_images_at_any_aspect_ratio(height, width, size, seed):
    rng = np.random.default_rng(seed)
    # Off the border, where the antialiasing's kernel is cut and moves the picture a little.
    top, left = rng.integers(height // 6, height // 3), rng.integers(width // 6, width // 3)
    labels = torch.zeros(height, width, dtype=torch.uint8)
    labels[top : top + height // 2, left : left + width // 2] = 9
    image = ((labels == 9) * 200).to(torch.uint8).expand(3, -1, -1).contiguous()
    picture, small = resize_image(image, size), resize_labels(labels, size)
    assert picture.shape == (3, *size)
    assert set(small.unique().tolist()) == {0, 9}
    assert (small == 9)[picture[0] > 190].all()
    assert not (small == 9)[picture[0] < 10].any()
    for axis in (0, 1):
        at = torch.arange(size[1 - axis], dtype=torch.float64)
        centres = [(w.double().sum(axis) * at).sum() / w.double().sum() for w in (small == 9, picture[0])]
        assert abs(centres[0] - centres[1]) <= 0.51


# Episodes


@settings(max_examples=30, deadline=None)
@any_question
def test_every_episode_is_valid(ways, shots, presence, seed):
    made = halves({CAR: 5, CAT: 4, DOG: 6}, NAMES)
    options = {"ways": ways, "shots": shots, "seed": str(seed), "presence_probability": presence}
    if ways == 3 and presence < 1:  # every image shows one of the three
        with pytest.raises(ValueError, match="Every image holds one of the classes"):
            [made.sample([CAR, CAT, DOG], 9, **options) for _ in range(20)]
        return
    episode = made.episode(made.sample([CAR, CAT, DOG], 5, **options))
    assert episode.support_images.shape == (5, ways, shots, 3, 16, 16)
    assert set(episode.support_masks.unique().tolist()) == {0, 1}
    assert (episode.presence.sum(1) == (0 if presence == 0 else 1)).all() or presence == 0.5
    for b in range(5):
        for n, c in enumerate(episode.class_ids[b].tolist()):
            # The brightness tells the class, and the left half is what the mask marks.
            assert ((episode.support_images[b, n] * 255).round() // 10 == c).all()
            assert (episode.support_masks[b, n] == 1).float().mean() == 0.5
            assert torch.equal(episode.query_labels[b] == n + 1, episode.query_class_map[b] == c)


def test_originals_are_kept_only_when_asked_for():
    plain = halves({CAR: 3}, NAMES)
    assert plain.episode(plain.sample([CAR], 1)).query_originals is None
    kept = plain.under(protocol_named("original"))
    (original,) = kept.episode(kept.sample([CAR], 1)).query_originals
    assert original.shape == (20, 24)
    assert original.unique().tolist() == [0, 1]
    assert plain.under(protocol_named("square")) is plain


def test_a_scrap_of_a_class_is_never_an_absent_query():
    made = halves({CAR: 3, DOG: 4}, NAMES)
    made.pairs["dog0"][1][0, 0] = CAR
    rows = made.sample([CAR], 60, presence_probability=0.5)
    assert {row.query for row in rows} == {"car0", "car1", "car2", "dog1", "dog2", "dog3"}
    assert "dog0" in {row.query for row in made.sample([DOG], 60, presence_probability=0.5)}


def test_rows_are_the_same_at_every_size():
    rows = [str(halves({CAR: 5, DOG: 4}, NAMES, size=size).sample([CAR, DOG], 9)) for size in (8, 16, 31)]
    assert rows[0] == rows[1] == rows[2]


def test_rows_of_other_images_or_kinds_are_refused():
    made = halves({CAR: 3, DOG: 2}, NAMES)
    with pytest.raises(DataError, match=r"not among the 5 of made \(day\), the first is 'x': they belong to another"):
        made.episode([EpisodeRow("x", (CAR,), (("car0",),))])
    with pytest.raises(DataError, match=r"Support image 'dog0' of made shows nothing of class 7 at 16 .* sample them"):
        made.episode([EpisodeRow("car1", (CAR,), (("dog0",),))])
    with pytest.raises(ValueError, match=r"episodes of one kind; found \(ways, shots\) \[\(1, 1\), \(1, 2\)\]"):
        made.episode([EpisodeRow("car0", (CAR,), (way,)) for way in (("car1",), ("car1", "car2"))])


def test_unknown_classes_and_too_few_images():
    made = halves({CAR: 3, DOG: 2}, NAMES)
    with pytest.raises(DataError, match=r"Class 9 is not in made\. Its classes are: 7 car, 12 dog"):
        made.sample([9], 1)
    with pytest.raises(DataError, match=r"2-shot episodes of class 12 \(dog\) need 3 .* have 2\. Ask for fewer shots"):
        made.sample([DOG], 1, shots=2)
    assert made.usable_classes(minimum_images=3) == (CAR,)
    assert made.usable_classes([DOG], minimum_images=2) == (DOG,)
    assert made.describe([DOG, CAR]) == "dog 2, car 3"


# Groups


@settings(max_examples=40, deadline=None)
@any_question
def test_supports_come_from_other_groups_than_the_query(ways, shots, presence, seed):
    images = {c: [f"{video}{c}{k}" for video in "uvw" for k in range(2 + c)] for c in range(5)}
    groups = {i: i[0] for members in images.values() for i in members}
    options = {"ways": ways, "shots": shots, "seed": str(seed), "presence_probability": presence, "groups": groups}
    rows = sample_rows(images, range(5), 10, **options)
    assert rows == sample_rows(images, range(5), 10, **options)
    for row in rows:
        for c, way in zip(row.classes, row.supports, strict=True):
            assert len(set(way)) == shots
            assert set(way) <= set(images[c])
            assert row.query[0] not in {i[0] for i in way}
        holds = [row.query in images[c] for c in row.classes]
        assert any(holds) or presence < 1
        assert not any(holds) or presence > 0


def test_a_group_for_every_image_changes_no_draw():
    images = {c: [f"image{c}{i}" for i in range(c + 4)] + ["shared"] for c in range(5)}
    alone = {i: i for members in images.values() for i in members}
    for seed in range(20):
        for presence in (0.0, 0.6, 1.0):
            options = {"ways": 2, "shots": 2, "seed": str(seed), "presence_probability": presence}
            rows = sample_rows(images, range(5), 9, **options)
            assert rows == sample_rows(images, range(5), 9, **options, groups=alone)


def test_a_class_in_one_group_only_is_refused_with_the_next_step():
    groups = {f"{name}{k}": name[0] for name in ("car", "dog") for k in range(4)}
    made = halves({CAR: 4, DOG: 3}, NAMES, groups=groups)
    with pytest.raises(DataError, match=r"class 7 \(car\) with a query from 'c' need 1 .* of made .* are 0\. Ask for"):
        made.sample([CAR], 3)
    with pytest.raises(ValueError, match=r"Class 1 has 1 images outside the group 'a'; 2-shot .* need 2"):
        sample_rows({1: ["a1", "a2", "b1"]}, [1], 5, shots=2, groups={"a1": "a", "a2": "a", "b1": "b"})
    assert len(halves({CAR: 4, DOG: 3}, NAMES).sample([CAR], 3)) == 3


def test_parts_are_disjoint_hold_every_class_and_leave_neighbours_together():
    drives = {drive: sorted(f"car{k}" for k in range(40) if k % 2 == odd) for odd, drive in enumerate(("east", "west"))}
    groups = {i: drive for drive, ids in drives.items() for i in ids} | {f"dog{k}": f"alone{k}" for k in range(9)}
    made = halves({CAR: 40, DOG: 9}, NAMES, groups=groups)
    parts = [made.part(number, 4) for number in range(4)]
    assert sorted(i for part in parts for i in part.ids) == sorted(made.ids)
    assert made.part(6, 4).ids == parts[2].ids
    assert made.part(3, 1) is made
    for part in parts:
        assert [len(part.images_by_class[CAR]), len(part.images_by_class[DOG])] in ([10, 2], [10, 3])
        for ids in drives.values():  # a stretch of five frames of each drive
            places = [place for place, i in enumerate(ids) if i in part.ids]
            assert places == list(range(places[0], places[0] + 5))
        part.sample([CAR], 5)
    with pytest.raises(DataError, match="need 2 images"):
        made.part(0, 9).sample([DOG], 1)


def test_a_subset_keeps_the_groups():
    groups = {f"car{k}": "even" if k % 2 == 0 else "odd" for k in range(6)}
    part = halves({CAR: 6}, NAMES, groups=groups).restricted(["car0", "car1", "car3"])
    assert all(groups[row.query] != groups[row.supports[0][0]] for row in part.sample([CAR], 20))


# Subsets and memory


def test_a_subset_knows_only_its_images():
    made = halves({CAR: 3, DOG: 2}, NAMES)
    part = made.restricted(["car2", "car0"], domain="dusk")
    assert (part.ids, part.domain, part.name) == (("car0", "car2"), "dusk", "made")
    assert part.images_by_class == {CAR: ("car0", "car2"), DOG: ()}
    assert (len(made), made.domain) == (5, "day")
    assert made.without_classes([DOG]).ids == ("car0", "car1", "car2")
    with pytest.raises(DataError, match=r"1 of these images are not among the 2 of made \(dusk\).*'dog1'"):
        part.images(["car0", "dog1"])
    with pytest.raises(DataError, match="first is 'nowhere'"):
        made.restricted(["car1", "nowhere"])
    with pytest.raises(DataError, match=r"made \(day\) is left without an image"):
        halves({0: 2}, {0: "road"}, size=(8, 12)).restricted([])


def test_images_are_decoded_once_and_shared_with_subsets(monkeypatch):
    made = halves({CAR: 3, DOG: 2}, NAMES, size=(12, 20))
    part = made.restricted(["car0", "dog1"])
    first, again = made.images(["car0", "car1"]), part.images(["car0", "dog1"])
    made.images(made.ids)
    assert sorted(made.loaded) == sorted(made.ids)
    assert torch.equal(first.images[0], again.images[0])
    # Room for two: the rest is decoded at each call and is the same.
    monkeypatch.setattr(images_module, "CACHE_BYTES", 2 * 5 * 12 * 20)
    tight = halves({CAR: 3, DOG: 2}, NAMES, size=(12, 20))
    for _ in range(2):
        assert torch.equal(tight.images(tight.ids).images, made.images(made.ids).images)
    assert len(tight.loaded) == 2 * 5 - 2


# Batches


def test_batches_are_in_the_order_asked_for_with_void_kept():
    road = torch.arange(30 * 50).reshape(30, 50) % 3
    pairs = {i: (torch.full((3, 30, 50), n, dtype=torch.uint8), (road + n) % 3) for n, i in enumerate("abc")}
    pairs["void"] = (pairs["a"][0], torch.full((30, 50), VOID))
    pairs = {i: (image, labels.to(torch.int16)) for i, (image, labels) in pairs.items()}
    made = Made(pairs, dict(enumerate("xyz")), size=(30, 50))
    assert isinstance(made, SegmentationSource)
    batch = made.images(["c", "a", "void", "c"])
    assert (batch.images[:, 0, 0, 0] * 255).round().tolist() == [2, 0, 0, 2]
    assert [torch.equal(labels, pairs[i][1]) for labels, i in zip(batch.labels, ("c", "a", "void", "c"))] == [True] * 4
    with pytest.raises(ValueError, match="at least one image; none of made"):
        made.images([])


# Damage


def test_an_image_of_another_size_than_its_label_map_is_named():
    made = halves({CAR: 2}, NAMES)
    made.pairs["car0"] = (made.pairs["car0"][0][:, 1:], made.pairs["car0"][1])
    with pytest.raises(DataError, match="car0: the image is 24 x 19 pixels, its label map 24 x 20"):
        made.original("car0")


# Joined sets


@pytest.fixture
def sets(tmp_path, monkeypatch):
    monkeypatch.setattr("fsslib.data.cache.cache_root", lambda: tmp_path / "cache")
    draw_pascal(tmp_path), draw_coco(tmp_path), draw_tiles(tmp_path), draw_fss(tmp_path), draw_camvid(tmp_path)

    def opened(*names: str, size: int = 24):
        return [open_images(name, root=tmp_path, size=size) for name in names]

    return opened


def test_a_joined_set_has_the_images_classes_and_pixels_of_all(sets):
    parts = sets("pascal", "coco", "fss_1000")
    both = joined(parts, name="photos", domain="photo")
    assert isinstance(both, EpisodeSource)
    assert both.ids == tuple(sorted(f"{part.name}/{i}" for part in parts for i in part.ids))
    assert both.class_names == {c: name for part in parts for c, name in part.class_names.items()}
    assert list(both.class_names) == sorted(both.class_names)
    assert len(both.images_by_class[12]) == sum(len(part.images_by_class.get(12, ())) for part in parts)
    for part in parts:
        for mine, theirs in zip(both.original(f"{part.name}/{part.ids[0]}"), part.original(part.ids[0])):
            assert torch.equal(mine, theirs)
    rows = both.sample([12, 15], 12, ways=2)
    alone = {part.name: part for part in parts}
    for row, image in zip(rows, both.episode(rows).query_images):
        name, _, own = row.query.partition("/")
        assert torch.equal(image, alone[name].images([own]).images[0])


def test_subsets_of_a_joined_set_and_joined_subsets_agree(sets):
    parts = sets("pascal", "coco")
    both = joined(parts, name="both", domain="photo").without_classes([12])
    again = joined([part.without_classes([12]) for part in parts], name="both", domain="photo")
    assert both.contents == again.contents
    assert len(both) > 0


def test_a_cache_serves_squares_alone(sets, tmp_path):
    (voc,) = sets("pascal")
    rows = voc.sample([12], 4)
    for name in ("hsnet", "pfenet", "square"):
        plain, cached = (one.under(protocol_named(name)) for one in (voc, voc.cached(tmp_path / "pixels")))
        assert torch.equal(cached.episode(rows).query_class_map, plain.episode(rows).query_class_map)


def test_caches_and_groups_of_the_sets_serve_the_joined_one(sets, tmp_path):
    parts = sets("pascal", "magnetic_tile", "camvid")
    cached = joined([part.cached(tmp_path / "pixels") for part in parts], name="both", domain="photo")
    plain = joined(parts, name="both", domain="photo")
    rows = [row for c in (12, class_id("break")) for row in plain.sample([c], 3)]
    assert torch.equal(cached.episode(rows).query_images, plain.episode(rows).query_images)
    for part in parts[1:]:
        (one, *_) = part.ids
        assert plain._groups[f"{part.name}/{one}"] == f"{part.name}/{part._groups[one]}"
    assert plain._groups[f"pascal/{parts[0].ids[0]}"] == f"pascal/{parts[0].ids[0]}"


def test_sets_that_do_not_fit_together(sets):
    (voc,), (small,) = sets("pascal"), sets("pascal", size=16)
    other = halves({12: 2}, {12: "hound"}, name="b", size=24)
    for pair, message in (
        ([voc, small], r"one size; found \[16, 24\]"),
        ([voc, other], "Class 12 is 'dog' in one set and 'hound' in b"),
        ([voc, voc], "different names; found pascal, pascal"),
        ([], r"found \[\]"),
    ):
        with pytest.raises(ValueError, match=message):
            joined(pair, name="both", domain="photo")

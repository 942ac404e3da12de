"""Sets joined into one, and groups of images that an episode keeps apart. 10 s."""

import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fsslib.data.images import DataError, ImageClasses, LabelledImageSet, classes_in
from fsslib.data.joined import joined
from fsslib.data.magnetic_tile import MagneticTile
from fsslib.data.pascal import PascalVOC
from fsslib.episodes import EpisodeSource, sample_rows

NAMES = {7: "car", 8: "cat", 12: "dog", 21: "truck"}


def drawn(name: str, classes: dict[int, int], *, size: int = 16, names=NAMES, **more) -> LabelledImageSet:
    """As many images of each class as stated: the class fills the left half, the image's brightness is its number."""
    files = {}
    for c, count in classes.items():
        for k in range(count):
            labels = torch.zeros(20, 24, dtype=torch.uint8)
            labels[:, :12] = c
            files[f"{names[c]}{k}"] = (torch.full((3, 20, 24), 10 * c + k, dtype=torch.uint8), labels)
    contents = {i: classes_in(labels, size) for i, (_, labels) in files.items()}
    class_names = {c: names[c] for c in classes}
    return LabelledImageSet(contents, files.__getitem__, class_names, name=name, domain="photo", size=size, **more)


def first_letter(image_id: str) -> str:
    return image_id[0]


# Joining


def test_a_joined_set_has_the_images_and_classes_of_all():
    both = joined([drawn("b", {7: 2, 12: 1}), drawn("a", {7: 3, 21: 2})], name="photos", domain="photo")
    assert isinstance(both, EpisodeSource)
    assert both.ids == ("a/car0", "a/car1", "a/car2", "a/truck0", "a/truck1", "b/car0", "b/car1", "b/dog0")
    assert list(both.class_names.items()) == [(7, "car"), (12, "dog"), (21, "truck")]
    assert both.images_by_class[7] == ("a/car0", "a/car1", "a/car2", "b/car0", "b/car1")
    assert (both.name, both.domain, both.size) == ("photos", "photo", 16)


def test_episodes_of_a_joined_set_hold_the_pixels_of_the_right_set():
    other = drawn("b", {7: 3, 12: 2})
    brighter = LabelledImageSet(
        other.contents,
        lambda i: (other._load(i)[0] + 100, other._load(i)[1]),
        other.class_names,
        name="a",
        domain="photo",
        size=16,
    )
    both = joined([brighter, other], name="both", domain="photo")
    rows = both.sample([7, 12], 12, ways=2)
    episode = both.episode(rows).check_values()
    for b, row in enumerate(rows):
        for n, c in enumerate(row.classes):
            (image_id,) = row.supports[n]
            expected = 10 * c + int(image_id[-1]) + (100 if image_id.startswith("a/") else 0)
            assert (episode.support_images[b, n, 0] * 255).round().unique().tolist() == [expected]
            assert (episode.support_masks[b, n, 0] == 1).float().mean() == 0.5
    assert {i[0] for row in rows for way in row.supports for i in way} == {"a", "b"}


def test_subsets_of_a_joined_set_and_joined_subsets_agree():
    first, second = drawn("a", {7: 3, 8: 2}), drawn("b", {7: 2, 21: 2})
    both = joined([first, second], name="both", domain="photo")
    without = joined([s.without_classes([7]) for s in (first, second)], name="both", domain="photo")
    assert both.without_classes([7]).contents == without.contents
    assert without.ids == ("a/cat0", "a/cat1", "b/truck0", "b/truck1")


def test_what_is_large_is_decided_by_each_set():
    lenient = drawn("a", {7: 1})
    lenient._set_contents({"car0": ImageClasses(frozenset({7, 8}), frozenset({8}))})
    both = joined([lenient, drawn("b", {7: 1, 8: 1})], name="both", domain="photo")
    assert both.images_by_class[8] == ("a/car0", "b/cat0")
    assert both.images_by_class[7] == ("b/car0",)


def test_originals_are_kept_when_the_sets_keep_them():
    kept = [drawn(name, {7: 2}, keep_originals=True) for name in "ab"]
    both = joined(kept, name="both", domain="photo")
    assert both.episode(both.sample([7], 2)).query_originals[0].shape == (20, 24)


def test_sets_that_do_not_fit_together():
    for other, message in (
        (drawn("b", {7: 1}, size=8), r"one size and keep_originals; found \[\(8, False\), \(16, False\)\]"),
        (drawn("b", {7: 1}, keep_originals=True), "one size and keep_originals"),
        (drawn("b", {7: 1}, names={7: "lorry"}), "Class 7 is 'car' in one set and 'lorry' in b"),
        (drawn("a", {7: 1}), "different names; found a, a"),
    ):
        with pytest.raises(ValueError, match=message):
            joined([drawn("a", {7: 1}), other], name="both", domain="photo")
    with pytest.raises(ValueError, match=r"found \[\]"):
        joined([], name="none", domain="photo")


# Groups


@settings(max_examples=40, deadline=None)
@given(
    ways=st.integers(1, 3),
    shots=st.integers(1, 3),
    presence=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 10**6),
)
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


@given(seed=st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_a_group_for_every_image_changes_no_draw(seed):
    images = {c: [f"image{c}{i}" for i in range(c + 4)] + ["shared"] for c in range(5)}
    alone = {i: i for members in images.values() for i in members}
    for presence in (0.0, 0.6, 1.0):
        options = {"ways": 2, "shots": 2, "seed": str(seed), "presence_probability": presence}
        assert sample_rows(images, range(5), 9, **options) == sample_rows(images, range(5), 9, **options, groups=alone)


def test_too_few_images_outside_a_group():
    images = {1: ["a1", "a2", "a3", "b1"]}
    groups = {i: i[0] for i in images[1]}
    assert len(sample_rows(images, [1], 5, groups=groups)) == 5
    with pytest.raises(ValueError, match=r"Class 1 has 1 images outside the group 'a'; 2-shot .* need 2"):
        sample_rows(images, [1], 5, shots=2, groups=groups)


def test_a_class_in_one_group_only_is_refused_with_the_next_step():
    data = drawn("videos", {7: 4, 12: 3}, group_of=first_letter)
    with pytest.raises(
        DataError,
        match=r"1-shot episodes of class 7 \(car\) with a query from 'c' need 1 .* of videos .* there are 0\. Ask for",
    ):
        data.sample([7], 3)
    assert len(drawn("images", {7: 4, 12: 3}).sample([7], 3)) == 3


def test_a_subset_and_a_joined_set_keep_the_groups():
    def video(image_id: str) -> str:
        return "even" if int(image_id[-1]) % 2 == 0 else "odd"

    videos = drawn("videos", {7: 6}, group_of=video)
    part = videos.restricted(["car0", "car1", "car3"])
    for row in part.sample([7], 20):
        assert video(row.query) != video(row.supports[0][0])
    both = joined([videos, drawn("photos", {7: 2})], name="both", domain="photo")
    pairs = {(row.query, row.supports[0][0]) for row in both.sample([7], 300)}
    assert {("photos/car0", "photos/car1"), ("photos/car0", "videos/car0")} <= pairs
    within = [(query, support) for query, support in pairs if query[0] == support[0] == "v"]
    assert within
    assert all(video(query) != video(support) for query, support in within)


def test_two_sets_with_groups_of_the_same_name_keep_them_apart():
    sets = [drawn(name, {7: 2}, group_of=first_letter) for name in ("a", "b")]
    both = joined(sets, name="both", domain="photo")
    assert {row.query[0] + row.supports[0][0][0] for row in both.sample([7], 30)} == {"ab", "ba"}


# The real images


@pytest.mark.realdata
def test_photographs_and_tiles_are_joined():
    if not os.environ.get("FSSLIB_DATA"):
        pytest.skip("FSSLIB_DATA is not set: no real images to read")
    sets = [PascalVOC(size=64), MagneticTile(size=64)]
    both = joined(sets, name="both", domain="mixed")
    assert len(both) == len(sets[0]) + len(sets[1])
    classes = both.usable_classes(minimum_images=20)
    assert {"dog", "fray"} <= {both.class_names[c] for c in classes}
    both.episode(both.sample(classes, 8, ways=2)).check_values()

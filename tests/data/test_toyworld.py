"""The toy world: the same picture for the same name, whatever the batch, the size or the device; scenes as promised."""

import hashlib
import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from fsslib.data import open_task
from fsslib.data.toyworld import (
    CLASS_NAMES,
    DEVELOPMENT_DOMAIN,
    DEVELOPMENT_FOLD,
    DOMAINS,
    TARGET_DOMAINS,
    TEST_FOLDS,
    ToyWorld,
    base_classes,
    fold_classes,
)
from fsslib.data.toyworld.classes import ALL_NAMES, SILHOUETTE_OF, TEXTURE_OF, split_base_classes, split_classes
from fsslib.data.toyworld.domains import blur
from fsslib.data.toyworld.noise import clouds, uniform
from fsslib.data.toyworld.surfaces import SILHOUETTES, TEXTURES

FOLDS = (*TEST_FOLDS, DEVELOPMENT_FOLD)
IDS = [f"c{c}-{n:06d}" for n, c in enumerate(CLASS_NAMES)]


def test_classes_are_pairs_of_shared_parts():
    assert len(set(zip(SILHOUETTE_OF, TEXTURE_OF))) == len(set(ALL_NAMES.values())) == 100
    assert len(CLASS_NAMES) == 25
    assert CLASS_NAMES.items() <= ALL_NAMES.items()
    for of, parts in ((SILHOUETTE_OF[:25], SILHOUETTES), (TEXTURE_OF[:25], TEXTURES)):
        assert min(of.count(part) for part in range(len(parts))) >= 2
        for fold in FOLDS:
            tested, base = ([of[c - min(CLASS_NAMES)] for c in group(fold)] for group in (fold_classes, base_classes))
            assert len(set(tested)) == 5
            assert set(tested) <= set(base)


def test_splits_have_classes_of_their_own_whose_parts_are_learnt_on_others():
    tested, base = [[classes(split) for split in range(12)] for classes in (split_classes, split_base_classes)]
    assert len({c for own in tested for c in own}) == 60
    assert {c for own in tested for c in own}.isdisjoint(CLASS_NAMES), "none is a fold's"
    assert max(Counter(c for own in base for c in own).values()) <= 3
    for own, learnt in zip(tested, base):
        assert (len(set(own)), len(set(learnt))) == (5, 15)
        assert set(learnt).isdisjoint({*own, *fold_classes(DEVELOPMENT_FOLD)})
        for of in (SILHOUETTE_OF, TEXTURE_OF):
            asked, shown = ([of[c - min(ALL_NAMES)] for c in classes] for classes in (own, learnt))
            assert len(set(asked)) == 5
            assert set(asked) <= set(shown)
            assert max(Counter(shown).values()) <= 3
    # Frozen: results are of these classes.
    listed = f"{tested} {base}"
    assert hashlib.sha256(listed.encode()).hexdigest().startswith("b4f3ca47d5d5cf5f")
    with pytest.raises(ValueError, match="has splits 0 to 11; found split 12"):
        split_classes(12)


def test_folds_are_disjoint_and_development_is_never_trained_on():
    for fold in FOLDS:
        base = set(base_classes(fold))
        assert len(base) == 15
        assert not base & {*fold_classes(fold), *fold_classes(DEVELOPMENT_FOLD)}
    assert sorted(c for f in FOLDS for c in fold_classes(f)) == sorted(CLASS_NAMES)
    assert DEVELOPMENT_DOMAIN not in TARGET_DOMAINS


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_picture_does_not_depend_on_its_batch(domain):
    world = ToyWorld(domain, size=32)
    (images, maps), (again, same_maps) = world.images(IDS), world.images(IDS[10:13])
    assert torch.equal(maps[10:13], same_maps)
    torch.testing.assert_close(images[10:13], again, atol=1e-5, rtol=0)
    assert images.shape == (25, 3, 32, 32)
    assert 0 <= images.min() <= images.max() <= 1
    assert images.std() > 0.05


def test_domains_share_scenes_and_differ_in_looks():
    drawn = {domain: ToyWorld(domain, size=32).images(IDS) for domain in DOMAINS}
    assert all(torch.equal(maps, drawn["photo"][1]) for _, maps in drawn.values())
    for domain, (images, _) in drawn.items():
        for other, (others, _) in drawn.items():
            assert domain == other or (images - others).abs().mean() > 0.05


def test_pictures_are_frozen():
    """Means, so that an edit which moves every scene or alters a look cannot pass unseen: results/ depends on them."""
    _, maps = ToyWorld(size=32).images(IDS)
    assert maps.sum().item() == 9845717
    for domain, (brightness, step) in FROZEN.items():
        images, _ = ToyWorld(domain, size=32).images(IDS)
        assert images.mean().item() == pytest.approx(brightness, abs=1e-4)
        assert images.diff(dim=-1).abs().mean().item() == pytest.approx(step, abs=1e-4)


FROZEN = {
    "photo": (0.37407, 0.09337),
    "underwater": (0.34926, 0.04515),
    "night": (0.14845, 0.07458),
    "sketch": (0.80942, 0.12720),
    "fog": (0.56042, 0.06395),
}
"""Brightness, and the step from a pixel to the next, which tells how sharp and how noisy a look is."""


@pytest.mark.parametrize("beyond_edges", [True, False])
@pytest.mark.parametrize(("height", "width"), [(32, 64), (64, 64)])
def test_blur_is_a_gaussian_of_the_same_width_at_every_size(height, width, beyond_edges):
    images, deviation = torch.rand(2, 3, height, width), 1.2 * height / 64
    radius = math.ceil(3 * deviation) if beyond_edges else int(4 * deviation)

    def gaussian(values):
        mode = "nearest" if beyond_edges else "constant"
        return gaussian_filter(values.double().numpy(), deviation, mode=mode, radius=radius, axes=(2, 3))

    expected = gaussian(images) / gaussian(torch.ones_like(images))
    found = blur(images, 1.2, beyond_edges=beyond_edges)
    torch.testing.assert_close(found, torch.from_numpy(expected).float(), atol=1e-5, rtol=0)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 999_900), st.sampled_from([32, 48, 64]))
def test_the_wanted_class_is_really_visible(start, size):
    ids = [f"c{1001 + n % 25}-{start + n:06d}" for n in range(50)]
    _, maps = ToyWorld(size=size, distractors=base_classes(0)).images(ids)
    wanted = torch.tensor([1001 + n % 25 for n in range(50)])[:, None, None]
    assert (maps == wanted).float().mean((1, 2)).min() > 0.01


def test_scenes_hold_one_to_four_objects_and_no_novel_distractor():
    task = open_task("toy", fold=1)
    base, novel = set(task.train_classes), set(task.test_classes)
    counts = []
    for row in task.tests["photo"].sample(task.test_classes, 100, seed="x"):
        _, maps = task.tests["photo"].images([row.query])
        classes = set(maps.unique().tolist()) - {0}
        assert classes & novel == set(row.classes)
        assert classes <= base | set(row.classes)
        counts.append(len(classes))
    assert min(counts) == 1
    assert 3 <= max(counts) <= 4
    batch = task.train.episode(task.train.sample(task.train_classes, 50, seed="y"))
    assert not set(batch.query_class_map.unique().tolist()) & novel
    open_world = open_task("toy", fold=1, novel_as_background=True)
    batch = open_world.train.episode(open_world.train.sample(task.train_classes, 50, seed="y"))
    assert set(batch.query_class_map.unique().tolist()) & novel


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 4), st.integers(1, 3), st.sampled_from([0.0, 0.4, 1.0]), st.integers(0, 1000))
def test_episodes_keep_the_contract(ways, shots, presence, seed):
    world = ToyWorld(size=32, distractors=base_classes(2))
    rows = world.sample(fold_classes(2), 6, ways=ways, shots=shots, seed=str(seed), presence_probability=presence)
    episode = world.episode(rows)
    assert (episode.support_masks == 1).flatten(3).any(-1).all()
    assert episode.support_masks.max() == 1
    assert 0 <= episode.query_labels.min() <= episode.query_labels.max() <= ways
    named = torch.tensor([[f"c{c}" in row.query for c in row.classes] for row in rows])
    assert torch.equal(episode.presence, named)


def test_two_way_queries_hold_both_ways_often_enough():
    for presence in (0.0, 0.5, 1.0):
        rows = ToyWorld().sample(fold_classes(0), 400, ways=2, presence_probability=presence)
        both = sum(row.query.count("c") == 2 for row in rows) / 400
        # 20 % are wanted at least; 4 points are twice the standard deviation of 400 draws.
        assert both > 0.2 - 0.04


def test_hash_noise_is_uniform_and_addressed():
    seeds = torch.arange(50)
    noise = uniform(seeds, 3, 40, 50)
    assert 0 <= noise.min() <= noise.max() < 1
    assert noise.mean().item() == pytest.approx(0.5, abs=0.005)
    assert noise.var().item() == pytest.approx(1 / 12, rel=0.02)
    assert torch.equal(uniform(seeds[7:8], 3, 40, 50), noise[7:8])
    correlation = torch.corrcoef(torch.stack([noise[0].flatten(), noise[1].flatten(), uniform(seeds[:1], 4, 2000)[0]]))
    assert (correlation - torch.eye(3)).abs().max() < 0.1
    assert clouds(seeds, 1, 32).mean().item() == pytest.approx(0.5, abs=0.05)


def test_bigger_pictures_show_the_same_scene():
    _, small = ToyWorld(size=64).images(IDS)
    _, large = ToyWorld(size=256).images(IDS)
    agreement = (large[:, 2::4, 2::4] == small).float().mean()
    assert agreement > 0.97


def test_parts_divide_the_objects():
    scene = ToyWorld().scene(IDS)
    assert torch.equal(scene.part_map > 0, scene.class_map > 0)
    textured = (scene.part_map == 1).sum() / (scene.part_map > 0).sum()
    assert 0.5 < textured < 0.95


@pytest.mark.parametrize("bad", ["c9999-000001", "c1001", "photo-000001", "c1001-1", "c1001+-000001"])
def test_bad_names_are_refused(bad):
    with pytest.raises(ValueError, match="not a toy image id"):
        ToyWorld().images([bad])


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda: ToyWorld("underwatr"), "photo, underwater, night, sketch, fog"),
        (lambda: ToyWorld(size=8), "16 pixels or more; found 8"),
        (lambda: ToyWorld(distractors=[7]), r"Not toy classes: \[7\]"),
        (lambda: open_task("toy", fold=7), "folds 0 to 3"),
        (lambda: open_task("cocoa"), "toy, toy_splits, pascal"),
    ],
)
def test_bad_requests_say_what_there_is(ask, said):
    with pytest.raises(ValueError, match=said):
        ask()

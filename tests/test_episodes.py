"""Batch types, manifests and samplers."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from fsslib import paths
from fsslib.data import open_task
from fsslib.data.toyworld import ToyWorld, fold_classes
from fsslib.episodes import (
    VOID,
    Episode,
    EpisodeManifest,
    EpisodeRow,
    EpisodeSet,
    EpisodeStream,
    LabelledImages,
    ManifestError,
    class_schedule,
    sample_rows,
)
from fsslib.reproduction.config import RunConfig


def blank(batch=2, ways=1, shots=1, size=4, **changes):
    shapes = {
        "support_images": (batch, ways, shots, 3, size, size),
        "support_masks": (batch, ways, shots, size, size),
        "query_images": (batch, 3, size, size),
        "query_labels": (batch, size, size),
        "class_ids": (batch, ways),
    }
    kinds = {name: torch.float32 if "images" in name else torch.int64 for name in shapes}
    return Episode(**{name: torch.zeros(shape, dtype=kinds[name]) for name, shape in shapes.items()} | changes)


def test_presence_slices_and_moves():
    labels = torch.zeros(2, 4, 4, dtype=torch.int64)
    labels[0, 0, 0], labels[1, 1] = 2, VOID
    episode = blank(ways=2, query_labels=labels, query_originals=(labels[0], labels[1]), domain="photo")
    assert episode.presence.tolist() == [[False, True], [False, False]]
    second = episode[1:2].to("cpu")
    assert (len(second), len(second.query_originals), second.domain) == (1, 1, "photo")
    assert torch.equal(second.query_labels, labels[1:2])
    assert second.query_class_map is None
    images = LabelledImages(episode.query_images, labels, "photo")[1:]
    assert torch.equal(images.labels, labels[1:])
    for batch in (episode, images):
        with pytest.raises(TypeError, match="slice"):
            batch[0]


def test_shapes_are_checked():
    # Inside the test run jaxtyping's check comes first; elsewhere it is the episode's own.
    with pytest.raises((ValueError, TypeCheckError), match="query_labels"):
        blank(query_labels=torch.zeros(2, 3, 4, dtype=torch.int64))


POOL = {c: [f"image{c}{i}" for i in range(c + 4)] + ["shared"] for c in range(6)}


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 4), st.sampled_from([0.0, 0.5, 1.0]))
def test_sampled_rows_are_valid(seed, ways, shots, presence):
    rows = sample_rows(POOL, range(6), 12, ways=ways, shots=shots, seed=str(seed), presence_probability=presence)
    assert len(rows) == 12
    for row in rows:
        assert len(set(row.classes)) == ways
        for c, supports in zip(row.classes, row.supports):
            assert len(set(supports)) == shots
            assert set(supports) <= set(POOL[c])
            assert row.query not in supports
        holds = [row.query in POOL[c] for c in row.classes]
        assert any(holds) if presence == 1.0 else True
        assert not any(holds) if presence == 0.0 else True


def test_sampling_is_frozen():
    """If this hash moves, every manifest ever written by seed has silently changed its meaning."""
    manifest = EpisodeManifest(tuple(sample_rows(POOL, range(6), 20, ways=2, shots=2, seed="frozen")))
    assert manifest.sha256[:16] == "3c4ee03094a47d01"
    toy = ToyWorld().sample(fold_classes(0), 20, ways=2, shots=2, seed="frozen", presence_probability=0.5)
    assert EpisodeManifest(tuple(toy)).sha256[:16] == "5f97048f043db804"


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 100))
def test_classes_lead_equally_often(episodes, ways, seed):
    schedule = class_schedule(range(5), episodes, ways, random.Random(seed))
    assert len(schedule) == episodes
    if ways == 1:
        counts = [sum(s == (c,) for s in schedule) for c in range(5)]
        assert max(counts) - min(counts) <= 1


def test_too_few_images_or_classes():
    for options, said in (
        ({"shots": 2}, "Class 3 has 2 images; 2-shot episodes need 3"),
        ({"ways": 2}, "at least 2 classes; 1"),
        ({"presence_probability": 0.0}, "no query without them"),
    ):
        with pytest.raises(ValueError, match=said):
            sample_rows({3: ["a", "b"]}, [3], 1, **options)


def test_rows_refuse_a_query_among_its_supports_and_repeats():
    for query, supports, said in (
        ("a", (("a",),), "own supports"),
        ("q", (("a", "a"),), "repeated"),
        ("q", (("a",), ("b",)), "1 classes but supports for 2"),
    ):
        with pytest.raises(ValueError, match=said):
            EpisodeRow(query, (1,), supports)


def test_manifest_round_trip(tmp_path):
    manifest = EpisodeManifest(tuple(sample_rows(POOL, range(6), 9, ways=2, shots=2)), {"data": "pool", "fold": "1"})
    manifest.save(tmp_path / "new folder" / "m.txt")
    loaded = EpisodeManifest.load(tmp_path / "new folder" / "m.txt")
    assert loaded == manifest
    assert loaded.sha256 == manifest.sha256
    assert [p.name for p in (tmp_path / "new folder").iterdir()] == ["m.txt"]


def test_repeated_supports_are_read_only_where_the_header_allows_them(tmp_path):
    path = tmp_path / "m.txt"
    rows = (EpisodeRow("q", (1,), (("a", "a"),), repeats=True), EpisodeRow("q", (1,), (("a", "b"),), repeats=True))
    manifest = EpisodeManifest(rows, {"data": "pool"})
    manifest.save(path)
    assert "# repeats: allowed\n" in path.read_text()
    assert EpisodeManifest.load(path) == manifest
    path.write_text(path.read_text().replace("# repeats: allowed\n", ""))
    with pytest.raises(ManifestError, match=r"line 4: not an episode .A support image is repeated"):
        EpisodeManifest.load(path)
    drawn = EpisodeManifest(tuple(sample_rows(POOL, range(6), 60, ways=2, shots=3)))
    drawn.save(path)
    assert "repeats" not in path.read_text()
    assert not any(row.repeats for row in drawn.rows)


def test_damaged_manifests_name_the_line(tmp_path):
    path = tmp_path / "m.txt"
    EpisodeManifest(tuple(sample_rows(POOL, range(6), 9))).save(path)
    text = path.read_text()
    for spoilt, said in (
        (text.replace("image", "imagf", 1), r"edited or cut.* Restore it, or sample"),
        ("".join(text.splitlines(keepends=True)[:-1]), "edited or cut"),
        (text[: text.rindex("\t")], "line 11"),
        ("hello", "first line"),
    ):
        path.write_text(spoilt)
        with pytest.raises(ManifestError, match=said):
            EpisodeManifest.load(path)
    for query, support in (("a;b", "c"), ("q", ""), ("q", "#c")):
        with pytest.raises(ValueError, match=r"Image id '(a;b||#c)' cannot stand in a manifest"):
            EpisodeManifest((EpisodeRow(query, (1,), ((support,),)),)).save(path)


def test_stream_and_set_are_functions_of_their_position():
    world = ToyWorld(size=32)
    stream = EpisodeStream(world, fold_classes(1), batch_size=3, seed=5)
    assert torch.equal(stream.batch(7).query_images, stream.batch(7).query_images)
    assert not torch.equal(stream.batch(7).query_images, stream.batch(8).query_images)
    rows = world.sample(fold_classes(1), 7)
    whole = next(EpisodeSet(world, EpisodeManifest(tuple(rows))).batches(7))
    parts = list(EpisodeSet(world, EpisodeManifest(tuple(rows))).batches(3))
    assert [len(p) for p in parts] == [3, 3, 1]
    assert torch.equal(torch.cat([p.query_labels for p in parts]), whole.query_labels)
    torch.testing.assert_close(torch.cat([p.query_images for p in parts]), whole.query_images, atol=1e-5, rtol=0)


@pytest.mark.parametrize("fold", range(5))
def test_the_test_episodes_of_the_toy_world_are_the_shipped_ones(fold):
    """What a run samples from its seed is what lies in data/manifests: old and new scores answer the same questions."""
    frozen = EpisodeManifest.load(paths.shipped("data") / "manifests" / f"toy-fold{fold}-1way-1shot-400.txt")
    task = open_task("toy", fold=fold)
    seed = RunConfig(fold=fold, episodes=400).test_seed
    assert tuple(task.tests["photo"].sample(task.test_classes, 400, seed=seed)) == frozen.rows
    assert frozen.about["seed"] == seed

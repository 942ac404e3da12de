"""The VOC reader and its base: right pixels, valid episodes, no leak, and errors a person can act on. About 10 s."""

import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fsslib.data import images, open_task
from fsslib.data.images import DataError, classes_in, read_label_map, resize_image, resize_labels
from fsslib.data.pascal import CLASS_NAMES, FOLDS, PascalVOC, read_lists
from fsslib.episodes import VOID, EpisodeManifest, EpisodeRow, EpisodeSet
from tests.data.voc_fixture import add_image, add_list, draw_voc, voc_palette

CAR, CAT, COW, DOG, PERSON, SHEEP = 7, 8, 10, 12, 15, 17


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    return draw_voc(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def voc(tree) -> PascalVOC:
    return PascalVOC(tree, size=48, keep_originals=True)


@pytest.fixture
def small(tmp_path) -> Path:
    """Four images of one class that a test may damage."""
    for k in range(4):
        add_image(tmp_path, f"2007_00000{k}", [(CAR, (8, 8, 30, 40))])
    add_list(tmp_path, "trainaug", [f"2007_00000{k}" for k in range(4)])
    return tmp_path


def image_file(root: Path, image_id: str) -> Path:
    return root / "VOCdevkit" / "VOC2012" / "JPEGImages" / f"{image_id}.jpg"


def mask_file(root: Path, image_id: str) -> Path:
    return root / "VOCdevkit" / "VOC2012" / "SegmentationClassAug" / f"{image_id}.png"


# Reading


def test_the_palette_has_the_published_colours():
    palette = voc_palette()
    assert palette[:3].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0]]
    assert palette[[15, 20, 255]].tolist() == [[192, 128, 128], [0, 64, 128], [224, 224, 192]]


@pytest.mark.parametrize("palette", [True, False])
def test_palette_and_grey_masks_read_as_indices(tmp_path, palette):
    written = add_image(tmp_path, "2007_000033", [(PERSON, (5, 5, 30, 30)), (CAT, (20, 20, 44, 50))], palette=palette)
    path = mask_file(tmp_path, "2007_000033")
    with Image.open(path) as file:
        assert file.mode == ("P" if palette else "L")
        brightness = np.asarray(file.convert("L"))
    assert np.array_equal(read_label_map(path).numpy(), written)
    assert set(np.unique(written)) == {0, CAT, PERSON, VOID}
    if palette:
        assert not np.array_equal(brightness, written), "this test would not notice a conversion to grey"


def test_lists_of_all_dialects_name_the_same_images(tmp_path):
    add_image(tmp_path, "2007_000033", [(CAR, (8, 8, 30, 40))])
    voc = tmp_path / "VOCdevkit" / "VOC2012"
    add_list(tmp_path, "plain", ["2007_000033", "2007_000039"])
    add_list(tmp_path, "windows", ["2007_000033", "", "  ", "2007_000039  "], newline="\r\n")
    add_list(tmp_path, "hsnet", ["2007_000033__01", "2007_000033__15", "2007_000039__20"])
    add_list(tmp_path, "bom", ["\ufeff2007_000033", "2007_000039", "2007_000039"])
    pairs = [f"JPEGImages/{i}.jpg SegmentationClassAug/{i}.png" for i in ("2007_000033", "2007_000039")]
    add_list(tmp_path, "pfenet", pairs)
    add_list(tmp_path, "deeplab", [f"/{pair.replace(' ', ' /')}" for pair in pairs])
    for name in ("plain", "windows", "hsnet", "bom", "pfenet", "deeplab", "ImageSets/Segmentation/plain.txt"):
        assert list(read_lists(voc, [name])) == ["2007_000033", "2007_000039"], name
    assert list(read_lists(voc, ["plain", "windows", "hsnet"])) == ["2007_000033", "2007_000039"]
    assert read_lists(voc, ["windows"])["2007_000039"].endswith("windows.txt, line 4,")


def test_all_lists_together_count_each_image_once(voc, tree):
    assert len(voc) == 4 * 20 + 5
    assert list(voc.ids) == sorted(set(voc.ids))
    val = PascalVOC(tree, lists="val", size=32)
    assert len(val) == 40
    assert set(val.ids) == set(val.ids) & set(voc.ids)


def test_episodes_do_not_depend_on_how_the_lists_are_cut(voc, tree, tmp_path):
    other = tmp_path / "data"
    shutil.copytree(tree, other)
    for name in ("trainaug", "val"):
        (other / "VOCdevkit/VOC2012/ImageSets/Segmentation" / f"{name}.txt").unlink()
    add_list(other, "train", list(reversed(voc.ids)))
    again = PascalVOC(other, size=48)
    assert again.sample([CAR, CAT], 20, ways=2, seed="7") == voc.sample([CAR, CAT], 20, ways=2, seed="7")


# Which images show which classes


def test_the_least_share_and_any_pixel_are_told_apart(voc):
    scrap = voc.contents["2011_000004"]
    assert scrap.held == {SHEEP, CAT}
    assert scrap.large == {SHEEP}
    assert voc.contents["2011_000005"].held == frozenset()
    assert len(voc.images_by_class[CAR]) == 4 + 2
    assert len(voc.images_by_class[CAT]) == 4 + 1


def test_the_least_share_counts_at_the_original_size_and_void_does_not():
    labels = torch.zeros(100, 100, dtype=torch.uint8)
    labels[:10, :20] = 3
    labels[50:, :50] = VOID
    assert classes_in(labels, 32).large == {3}
    labels[0, 0] = 0
    assert classes_in(labels, 32).large == frozenset()
    assert classes_in(labels, 32, minimum_share=0.0199).large == {3}
    assert classes_in(labels, 32).held == {3}


def test_a_class_that_vanishes_in_the_resize_is_never_drawn():
    labels = torch.zeros(64, 64, dtype=torch.uint8)
    labels[:, ::8] = 5
    assert 5 not in resize_labels(labels, 8)
    assert classes_in(labels, 8).large == frozenset()
    assert classes_in(labels, 64).large == {5}


# Resizing


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(20, 90),
    width=st.integers(20, 90),
    size=st.sampled_from([16, 33, 48, 64]),
    seed=st.integers(0, 1000),
)
def test_masks_stay_on_their_images_under_the_resize(height, width, size, seed):
    rng = np.random.default_rng(seed)
    top, left = rng.integers(0, height // 3), rng.integers(0, width // 3)
    labels = torch.zeros(height, width, dtype=torch.uint8)
    labels[top : top + height // 2, left : left + width // 2] = 9
    image = ((labels == 9) * 200).to(torch.uint8).expand(3, -1, -1).contiguous()
    mask, picture = resize_labels(labels, size), resize_image(image, size)
    assert set(mask.unique().tolist()) == {0, 9}
    # Where the picture is clear the mask agrees; at the object's edges the two may differ by half a pixel.
    assert (mask == 9)[picture[0] > 190].all()
    assert not (mask == 9)[picture[0] < 10].any()
    at = torch.arange(size, dtype=torch.float64)
    for axis in (0, 1):
        in_mask, in_picture = ((w.double().sum(axis) * at).sum() / w.double().sum() for w in (mask == 9, picture[0]))
        assert abs(in_mask - in_picture) <= 0.51


@pytest.mark.parametrize("factor", [3, 5, 7])
def test_the_resize_of_masks_has_no_preferred_side(factor):
    # Odd factors have a pixel in the middle of each cell; "nearest" of tv_tensors.Mask would take the cell's corner.
    labels = torch.randint(0, 21, (105, 105), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    resized = resize_labels(labels, 105 // factor)
    assert torch.equal(resized, labels[factor // 2 :: factor, factor // 2 :: factor])
    assert torch.equal(resized, resize_labels(labels.flip(0, 1), 105 // factor).flip(0, 1))


# Episodes


def check_episode(voc, rows, episode):
    """What every episode must be, checked against the files themselves."""
    episode.check_values()
    assert episode.support_masks.shape[:3] == (len(rows), len(rows[0].classes), len(rows[0].supports[0]))
    assert (episode.support_masks == 1).flatten(3).any(-1).all()
    for b, row in enumerate(rows):
        supports = [i for way in row.supports for i in way]
        assert row.query not in supports
        for c, way in zip(row.classes, row.supports, strict=True):
            assert len(set(way)) == len(way)
            assert all(i in voc.images_by_class[c] for i in way)
        assert episode.class_ids[b].tolist() == list(row.classes)
        expected = torch.zeros_like(episode.query_labels[b])
        for n, c in enumerate(row.classes, start=1):
            expected[episode.query_class_map[b] == c] = n
        expected[episode.query_class_map[b] == VOID] = VOID
        assert torch.equal(episode.query_labels[b], expected)


@settings(max_examples=30, deadline=None)
@given(
    ways=st.integers(1, 3),
    shots=st.integers(1, 3),
    presence=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 10_000),
)
def test_every_episode_is_valid(voc, ways, shots, presence, seed):
    classes = [CAR, CAT, COW, DOG, SHEEP]
    rows = voc.sample(classes, 6, ways=ways, shots=shots, seed=str(seed), presence_probability=presence)
    assert rows == voc.sample(classes, 6, ways=ways, shots=shots, seed=str(seed), presence_probability=presence)
    episode = voc.episode(rows)
    check_episode(voc, rows, episode)
    if presence == 1.0:
        assert episode.presence.any(1).all()
    if presence == 0.0:
        assert not episode.presence.any()


def test_episodes_hold_the_right_pixels(voc, tree):
    row = EpisodeRow("2011_000001", (DOG, CAR), (("2010_120001",), ("2011_000003",)))
    episode = voc.episode([row])
    with Image.open(mask_file(tree, "2011_000001")) as file:
        labels = torch.from_numpy(np.array(file))
    expected = torch.zeros_like(labels, dtype=torch.int64)
    expected[labels == DOG], expected[labels == CAR], expected[labels == VOID] = 1, 2, VOID
    assert episode.query_originals[0].shape == (45, 60)
    assert torch.equal(episode.query_originals[0], expected)
    assert torch.equal(episode.query_class_map[0], resize_labels(labels, 48).long())
    # Objects are painted in their palette colour: car is grey 128, dog dark red.
    colour = torch.from_numpy(voc_palette()).float() / 255
    for c, mask, image in (
        (DOG, episode.support_masks[0, 0, 0], episode.support_images[0, 0, 0]),
        (CAR, episode.support_masks[0, 1, 0], episode.support_images[0, 1, 0]),
        (DOG, episode.query_labels[0], episode.query_images[0]),
    ):
        torch.testing.assert_close(image[:, mask == 1].mean(1), colour[c], atol=0.06, rtol=0)
    # The cow in the car's support is background there; void stays void.
    assert episode.support_masks[0, 1, 0].unique().tolist() == [0, 1, VOID]


def test_originals_are_kept_only_when_asked_for(tree, voc):
    rows = voc.sample([CAR], 2)
    assert PascalVOC(tree, size=16).episode(rows).query_originals is None
    assert [o.shape for o in voc.episode(rows).query_originals] == [
        tuple(read_label_map(mask_file(tree, row.query)).shape) for row in rows
    ]


def test_a_scrap_of_a_class_is_never_an_absent_query(voc):
    # 2011_000004 holds nine pixels of a cat: no query without cats, though it may be any sheep's query.
    absent = voc.sample([CAT], 300, seed="a", presence_probability=0.0)
    assert "2011_000004" not in {row.query for row in absent}
    assert "2011_000004" in {row.query for row in voc.sample([SHEEP], 100, seed="a")}


def test_manifests_give_the_same_episodes_at_every_size(tree, voc, tmp_path):
    manifest = EpisodeManifest(tuple(voc.sample([CAR, DOG], 6, shots=2)), {"data": "fixture"})
    manifest.save(tmp_path / "episodes.txt")
    loaded = EpisodeManifest.load(tmp_path / "episodes.txt")
    small = PascalVOC(tree, size=20)
    assert tuple(small.sample([CAR, DOG], 6, shots=2)) == loaded.rows
    batches = list(EpisodeSet(small, loaded).batches(4))
    assert [len(batch) for batch in batches] == [4, 2]
    assert batches[0].query_images.shape == (4, 3, 20, 20)
    assert batches[0].domain == "photo"


def test_the_cache_changes_nothing(tree, monkeypatch):
    rows = PascalVOC(tree, size=24).sample([CAR], 5, shots=3)
    cached = PascalVOC(tree, size=24)
    first, second = cached.episode(rows), cached.episode(rows)
    monkeypatch.setattr(images, "CACHE_BYTES", 2 * 4 * 24**2)
    tight = PascalVOC(tree, size=24)
    third = tight.episode(rows)
    assert len(tight._cache) == 2 < len(cached._cache)
    for name in ("support_images", "support_masks", "query_images", "query_labels"):
        assert torch.equal(getattr(first, name), getattr(second, name))
        assert torch.equal(getattr(first, name), getattr(third, name))


# Folds


def test_the_folds_are_the_published_ones():
    assert [c for fold in FOLDS for c in fold] == list(CLASS_NAMES) == list(range(1, 21))
    assert [CLASS_NAMES[c] for c in FOLDS[1]] == ["bus", "car", "cat", "chair", "cow"]
    assert [CLASS_NAMES[fold[-1]] for fold in FOLDS] == ["bottle", "cow", "person", "tvmonitor"]


@pytest.mark.parametrize("fold", range(4))
def test_training_never_sees_a_pixel_of_a_novel_class(voc, tree, fold):
    parts = voc.fold(fold, minimum_images=4, minimum_training_images=4)
    assert parts.test_classes == FOLDS[fold]
    assert not set(parts.train_classes) & set(FOLDS[fold])
    assert not set(parts.train.ids) & set(parts.test.ids)
    assert set(parts.train.ids) | set(parts.test.ids) == set(voc.ids)
    for image_id in parts.train.ids:
        with Image.open(mask_file(tree, image_id)) as file:
            assert not set(np.unique(np.asarray(file)).tolist()) & set(FOLDS[fold])
    for c in FOLDS[fold]:
        assert parts.test.images_by_class[c] == voc.images_by_class[c]


def test_a_mixed_image_is_dropped_even_for_a_scrap(voc):
    # 2011_000004 is a sheep with nine pixels of a cat, which fold 1 tests and fold 2 does not.
    assert "2011_000004" not in voc.fold(1, minimum_images=4, minimum_training_images=4).train.ids
    assert "2011_000004" in voc.fold(2, minimum_images=4, minimum_training_images=4).train.ids


def test_the_smallest_class_size_is_the_callers(voc):
    assert voc.fold(1, minimum_images=5, minimum_training_images=4).test_classes == (CAR, CAT, COW)
    assert voc.fold(1, minimum_images=0, minimum_training_images=4).test_classes == FOLDS[1]
    assert voc.usable_classes(minimum_images=5) == (CAR, CAT, COW, DOG, PERSON, SHEEP)
    assert voc.usable_classes([DOG, 1], minimum_images=5) == (DOG,)


def test_a_subset_knows_only_its_images(voc):
    part = voc.restricted(["2011_000001", "2010_070001"])
    assert part.images_by_class[CAR] == ("2010_070001", "2011_000001")
    assert len(part) == 2
    assert len(voc) == 85
    foreign = EpisodeRow("2010_070002", (CAR,), (("2010_070001",),))
    with pytest.raises(DataError, match=r"'2010_070002' is not among these 2 images"):
        part.episode([foreign])
    with pytest.raises(DataError, match=r"1 of these images are not in pascal.*'nowhere'"):
        voc.restricted(["nowhere"])


# Errors


def test_without_data_the_message_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("FSSLIB_DATA", str(tmp_path / "empty"))
    with pytest.raises(DataError) as caught:
        PascalVOC()
    message = str(caught.value)
    assert str(tmp_path / "empty" / "VOCdevkit" / "VOC2012" / "JPEGImages") in message
    for part in ("FSSLIB_DATA", "VOCtrainval_11-May-2012.tar", "SegmentationClassAug", "toy world"):
        assert part in message


def test_masks_that_were_never_unpacked(small):
    shutil.rmtree(small / "VOCdevkit/VOC2012/SegmentationClassAug")
    with pytest.raises(DataError, match=r"no folder .*SegmentationClassAug\.\nTo get it"):
        PascalVOC(small)


def test_lists_that_are_missing_or_empty(small):
    with pytest.raises(DataError, match=r"The list .*nothing\.txt does not exist.*holds: trainaug\.txt"):
        PascalVOC(small, lists=["nothing"])
    add_list(small, "trainaug", ["", " "])
    with pytest.raises(DataError, match=r"name no image: .*trainaug\.txt"):
        PascalVOC(small)
    (small / "VOCdevkit/VOC2012/ImageSets/Segmentation/trainaug.txt").unlink()
    with pytest.raises(DataError, match=r"holds none of trainaug\.txt, train\.txt, val\.txt"):
        PascalVOC(small)


@pytest.mark.parametrize("which", [image_file, mask_file])
def test_a_list_that_names_a_missing_file(small, which):
    path = which(small, "2007_000002")
    path.unlink()
    with pytest.raises(DataError) as caught:
        PascalVOC(small)
    assert str(path) in str(caught.value)
    assert "trainaug.txt, line 3," in str(caught.value)
    image_file(small, "2007_000003").unlink()
    with pytest.raises(DataError, match="1 more like it"):
        PascalVOC(small)


def test_a_truncated_image_is_named_when_used_and_by_the_check(small):
    path = image_file(small, "2007_000001")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    voc = PascalVOC(small, size=32)
    row = EpisodeRow("2007_000000", (CAR,), (("2007_000001",),))
    with pytest.raises(DataError, match=r"2007_000001\.jpg cannot be read .*delete it and restore") as caught:
        voc.episode([row])
    assert isinstance(caught.value.__cause__, OSError)
    with pytest.raises(DataError, match=r"pascal: damaged files: 1\.\n.*2007_000001\.jpg"):
        voc.check()
    voc.restricted(["2007_000000", "2007_000002"]).check()


def test_the_check_names_ten_damaged_files_and_counts_the_rest(tmp_path):
    ids = [f"2007_{k:06d}" for k in range(13)]
    for image_id in ids:
        add_image(tmp_path, image_id, [(CAR, (8, 8, 30, 40))])
    add_list(tmp_path, "val", ids)
    voc = PascalVOC(tmp_path, size=16)
    for image_id in ids[1:]:
        image_file(tmp_path, image_id).write_bytes(b"")
    with pytest.raises(DataError) as caught:
        voc.check()
    lines = str(caught.value).splitlines()
    assert lines[0] == "pascal: damaged files: 12."
    assert lines[-1] == "... and 2 more: 2007_000011, 2007_000012"
    assert len(lines) == 12


@pytest.mark.parametrize("content", ["empty", "half", "text"])
def test_a_damaged_mask_is_named_at_opening(small, content):
    path = mask_file(small, "2007_000001")
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "half": whole[: len(whole) // 2], "text": b"<html>404</html>"}[content])
    with pytest.raises(DataError, match=r"2007_000001\.png cannot be read"):
        PascalVOC(small)


def test_an_empty_image_is_named_at_opening(small):
    image_file(small, "2007_000001").write_bytes(b"")
    with pytest.raises(DataError, match=r"2007_000001\.jpg cannot be read"):
        PascalVOC(small)


def test_a_mask_of_another_size_than_its_image(small):
    add_image(small, "other", [(CAR, (8, 8, 30, 40))], size=(50, 70))
    shutil.copy(mask_file(small, "other"), mask_file(small, "2007_000001"))
    with pytest.raises(DataError, match=r"2007_000001\.png: the image is 60 x 45 pixels, its label map 70 x 50"):
        PascalVOC(small)


def test_a_size_that_changes_after_opening_is_noticed(small):
    voc = PascalVOC(small, size=16)
    add_image(small, "other", [(CAR, (8, 8, 30, 40))], size=(50, 70))
    shutil.copy(image_file(small, "other"), image_file(small, "2007_000001"))
    with pytest.raises(DataError, match=r"2007_000001: the image is 70 x 50 pixels, its label map 60 x 45"):
        voc.check()


def test_a_photograph_in_a_masks_place(small):
    path = mask_file(small, "2007_000001")
    with Image.open(image_file(small, "2007_000001")) as file:
        file.save(path)
    with pytest.raises(DataError, match=r"2007_000001\.png is stored in mode RGB"):
        PascalVOC(small)


def test_a_mask_saved_as_the_grey_of_its_colours(small):
    path = mask_file(small, "2007_000001")
    with Image.open(path) as file:
        file.convert("L").save(path)
    with pytest.raises(DataError, match=r"2007_000001\.png holds the values \[128, 220\].* 0 to 20 and 255"):
        PascalVOC(small)


@pytest.mark.parametrize("fold", [-1, 4, 20])
def test_an_unknown_fold(voc, fold):
    with pytest.raises(DataError, match=rf"folds 0, 1, 2 and 3; asked for {fold}"):
        voc.fold(fold)


def test_a_fold_without_enough_images_shows_the_counts(voc):
    with pytest.raises(
        DataError, match=r"Fold 0 has no class with 5 .*aeroplane 4, .*bottle 4\. Folds that have: 1, 2, 3"
    ):
        voc.fold(0, minimum_images=5)
    with pytest.raises(DataError, match=r"Folds that have: none"):
        voc.fold(0)
    with pytest.raises(DataError, match=r"64 of 85 images are left.*no class has 20 of them: aeroplane 4"):
        voc.fold(3, minimum_images=4, minimum_training_images=20)


def test_unknown_classes_and_too_few_images(voc):
    with pytest.raises(DataError, match=r"Class 21 is not in pascal.*20 tvmonitor"):
        voc.sample([CAR, 21], 1)
    with pytest.raises(DataError, match=r"class 1 \(aeroplane\) need 5 images .* have 4\. Ask for fewer shots"):
        voc.sample([CAR, 1], 1, shots=4)


def test_rows_of_other_episodes_are_refused(voc):
    one, two = voc.sample([CAR, DOG], 1), voc.sample([CAR, DOG], 1, ways=2)
    with pytest.raises(ValueError, match=r"one kind; found \(ways, shots\) \[\(1, 1\), \(2, 1\)\]"):
        voc.episode([*one, *two])
    without = EpisodeRow("2010_070000", (DOG,), (("2010_070001",),))
    with pytest.raises(DataError, match=r"'2010_070001' of pascal shows nothing of class 12 at 48 pixels"):
        voc.episode([without])


# The real images


@pytest.fixture(scope="module")
def real() -> PascalVOC:
    if not os.environ.get("FSSLIB_DATA"):
        pytest.skip("FSSLIB_DATA is not set: no real images to read")
    return PascalVOC(size=128)


@pytest.mark.realdata
def test_the_voc_subset_is_all_there(real):
    if len(real) != 566:
        pytest.skip(f"FSSLIB_DATA holds {len(real)} VOC images, not the subset of 566 these counts are of")
    assert [len(read_lists(real.folder, [name])) for name in ("trainaug", "val", "all")] == [385, 181, 566]
    expected = {
        1: ["car", "cat", "chair", "cow"],
        2: ["diningtable", "dog", "horse", "person"],
        3: ["pottedplant", "sheep", "sofa", "tvmonitor"],
    }
    parts = {fold: real.fold(fold) for fold in expected}
    assert {fold: [CLASS_NAMES[c] for c in part.test_classes] for fold, part in parts.items()} == expected
    # Training loses 54, 58 and 41 % of the images.
    assert {fold: len(part.train) for fold, part in parts.items()} == {1: 262, 2: 237, 3: 335}
    assert {fold: len(part.train_classes) for fold, part in parts.items()} == {1: 8, 2: 9, 3: 10}
    twelve = tuple(c for part in parts.values() for c in part.test_classes)
    assert real.usable_classes(minimum_images=20) == twelve
    assert open_task("pascal_all").test_classes == twelve
    with pytest.raises(DataError, match=r"Fold 0 .*aeroplane 0, bicycle 6, bird 5, boat 2, bottle 18"):
        real.fold(0)


@pytest.mark.realdata
def test_episodes_of_real_images_are_valid(real):
    part = real.fold(2, minimum_images=2)
    rows = part.test.sample(part.test_classes, 12, ways=2, shots=2, seed="0", presence_probability=0.7)
    check_episode(part.test, rows, part.test.episode(rows))
    assert set(Counter(c for row in rows for c in row.classes)) <= set(FOLDS[2])
    rows = part.train.sample(part.train_classes, 12, shots=5)
    check_episode(part.train, rows, part.train.episode(rows))

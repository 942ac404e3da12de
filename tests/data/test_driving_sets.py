"""Cityscapes, GTA5 and SYNTHIA: the right class for every pixel, K of every city, and errors for people. 10 s."""

import re
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fsslib.data import camvid, gta5, synthia
from fsslib.data.cityscapes import IMAGES_PER_CITY, PIXDA_ONE_SHOT, city_of, cityscapes
from fsslib.data.driving import DrivingImages
from fsslib.data.images import DataError
from fsslib.data.sampling import k_per_group
from fsslib.data.streams import Relabelled
from fsslib.data.street_classes import CITYSCAPES_TRAIN_IDS, CLASS_NAMES, SUBSETS, TO_CAMVID
from fsslib.episodes import VOID, SegmentationSource
from fsslib.metrics import SegmentationMeter
from tests.data import street_fixture as fixture

OPEN = {"Cityscapes": cityscapes, "GTA5": gta5.gta5, "SYNTHIA": synthia.synthia}
DRAW = {"Cityscapes": fixture.draw_cityscapes, "GTA5": fixture.draw_gta5, "SYNTHIA": fixture.draw_synthia}
FILES = {
    "Cityscapes": (
        "leftImg8bit/train/ulm/ulm_000082_000019_leftImg8bit.png",
        "gtFine/train/ulm/ulm_000082_000019_gtFine_labelIds.png",
        "ulm_000082_000019",
    ),
    "GTA5": ("images/15188.png", "labels/15188.png", "15188"),
    "SYNTHIA": ("RAND_CITYSCAPES/RGB/0009399.png", "RAND_CITYSCAPES/GT/LABELS/0009399.png", "0009399"),
}
"""An image of each set, its label map, and its id."""

CITYSCAPES_NUMBERS = dict(zip((7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33), range(19), strict=True))
SYNTHIA_NAMES = (
    {1: "sky", 2: "building", 3: "road", 4: "sidewalk", 5: "fence", 6: "vegetation", 7: "pole", 8: "car"}
    | {9: "traffic sign", 10: "person", 11: "bicycle", 12: "motorcycle", 15: "traffic light", 16: "terrain"}
    | {17: "rider", 18: "truck", 19: "bus", 20: "train", 21: "wall"}
)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> tuple[Path, dict[str, dict[str, np.ndarray]]]:
    # A root with "RGB" in its name: paths of label maps are not made by replacing that text.
    root = tmp_path_factory.mktemp("RGB")
    return root, {name: draw(root) for name, draw in DRAW.items()}


@pytest.fixture
def small(tmp_path) -> Path:
    """Trees that a test may damage."""
    for draw in DRAW.values():
        draw(tmp_path)
    return tmp_path


def expected(numbers: np.ndarray, train_ids: dict[int, int]) -> np.ndarray:
    return np.array([[train_ids.get(int(number), VOID) for number in row] for row in numbers])


def check_pixels(source: DrivingImages, maps: dict[str, np.ndarray], train_ids: dict[int, int]) -> None:
    """Every image as drawn, its labels as the table says, and the histogram of all labels together."""
    assert isinstance(source, SegmentationSource)
    assert source.class_names == CLASS_NAMES
    batch = source.images(source.ids)
    total: Counter = Counter()
    for row, image_id in enumerate(source.ids):
        labels = expected(maps[image_id], train_ids)
        assert np.array_equal(batch.labels[row].numpy(), labels), image_id
        assert np.array_equal((batch.images[row, 0] * 255).round().numpy(), maps[image_id] * 7), image_id
        total.update(labels.ravel().tolist())
    assert Counter(batch.labels.flatten().tolist()) == total
    for image_id in source.ids:
        assert all(path.is_file() for path in source.files_of(image_id))


# Classes


def test_the_classes_and_their_numbers():
    assert list(CLASS_NAMES) == list(range(19))
    assert [CLASS_NAMES[c] for c in (0, 5, 9, 10, 13, 18)] == ["road", "pole", "terrain", "sky", "car", "bicycle"]
    assert CITYSCAPES_TRAIN_IDS == CITYSCAPES_NUMBERS
    assert {number: CLASS_NAMES[c] for number, c in synthia.TRAIN_IDS.items()} == SYNTHIA_NAMES
    left_out = {n: [CLASS_NAMES[c] for c in CLASS_NAMES if c not in SUBSETS[n]] for n in SUBSETS}
    absent = ["terrain", "truck", "train"]
    assert left_out == {19: [], 16: absent, 13: ["wall", "fence", "pole", *absent]}
    assert all(len(classes) == n for n, classes in SUBSETS.items())


def test_the_classes_as_those_of_camvid(drawn):
    names = {CLASS_NAMES[c]: camvid.CLASS_NAMES[other] for c, other in TO_CAMVID.items()}
    other = {"road": "road", "sidewalk": "pavement", "wall": "building", "building": "building", "fence": "fence"}
    other |= {"pole": "pole", "traffic light": "sign", "traffic sign": "sign", "vegetation": "tree", "terrain": "tree"}
    other |= {"sky": "sky", "person": "pedestrian"}
    other |= dict.fromkeys(("car", "truck", "bus", "train"), "car")
    other |= dict.fromkeys(("rider", "motorcycle", "bicycle"), "bicyclist")
    assert names == other
    source = cityscapes(drawn[0], size=fixture.SIZE)
    seen = Relabelled(source, TO_CAMVID, camvid.CLASS_NAMES).images(source.ids[:2]).labels
    own = source.images(source.ids[:2]).labels
    assert torch.equal(seen == 8, (own >= 13) & (own <= 16))
    assert torch.equal(seen == VOID, own == VOID)


def test_views_of_a_score_come_from_one_confusion_matrix():
    labels = torch.arange(19).repeat_interleave(4).view(1, 4, 19)
    prediction = labels.clone()
    prediction[labels == 3] = 4  # walls are taken for fences
    meter = SegmentationMeter(CLASS_NAMES)
    meter.update(prediction, labels)
    found = {n: meter.miou_of(classes) for n, classes in SUBSETS.items()}
    assert found == pytest.approx({19: 17.5 / 19, 16: 14.5 / 16, 13: 1})
    assert found[19] == meter.compute().miou


# Cityscapes


def test_cityscapes_pixels_and_splits(drawn):
    root, maps = drawn
    for split, ids in fixture.CITY_IDS.items():
        source = cityscapes(root, split=split, size=fixture.SIZE)
        assert source.ids == tuple(sorted(ids))
        assert (source.name, source.domain) == ("cityscapes", "cityscapes")
        check_pixels(source, maps["Cityscapes"], CITYSCAPES_NUMBERS)
    assert cityscapes(root).images(["ulm_000000_000019"]).images.shape == (1, 3, 512, 1024)
    with pytest.raises(ValueError, match=r"public labels are train and val; found 'test'"):
        cityscapes(root, split="test")


def test_train_ids_are_read_where_there_are_no_label_ids(small):
    before = cityscapes(small, split="val", size=fixture.SIZE)
    labels = before.images(before.ids).labels
    for image_id in before.ids:
        path = before.files_of(image_id)[1]
        as_train_ids = path.with_name(path.name.replace("labelIds", "labelTrainIds"))
        fixture.save(as_train_ids, np.zeros(fixture.SIZE, dtype=np.uint8))
        # The label maps in Cityscapes' own numbers go first.
        assert cityscapes(small, split="val").files_of(image_id)[1] == path
    for row, image_id in enumerate(before.ids):
        path = before.files_of(image_id)[1]
        as_train_ids = path.with_name(path.name.replace("labelIds", "labelTrainIds"))
        fixture.save(as_train_ids, labels[row].numpy().astype(np.uint8))
        path.unlink()
    after = cityscapes(small, split="val", size=fixture.SIZE)
    assert torch.equal(after.images(after.ids).labels, labels)


@pytest.mark.parametrize("name", OPEN)
def test_what_other_code_left_beside_the_label_maps_is_left_alone(small, name):
    before = OPEN[name](small)
    for image_id in before.ids:
        path = before.files_of(image_id)[1]
        for ending in ("labelTrainIds.png", "LABELTRAINIDS.PNG", "color.png"):
            fixture.save(path.with_name(f"{image_id}_{ending}"), np.zeros((3, 3), dtype=np.uint8))
            fixture.save(path.with_name(f"{image_id}_gtFine_{ending}"), np.zeros((3, 3), dtype=np.uint8))
    after = OPEN[name](small)
    assert [after.files_of(i) for i in after.ids] == [before.files_of(i) for i in before.ids]


@pytest.mark.parametrize("name", ["GTA5", "SYNTHIA"])
def test_train_ids_alone_are_said_to_be_all_there_is(small, name):
    for path in list((small / name / FILES[name][1]).parent.glob("[0-9]*")):
        path.rename(path.with_name(f"{path.stem}_labelTrainIds.png"))
    with pytest.raises(
        DataError, match=r"no label map as published, only .* such as 0+1?_labelTrainIds\.png.*\n.*To get"
    ):
        OPEN[name](small)


def test_k_images_of_every_city(drawn):
    source = cityscapes(drawn[0])
    for k in (1, 2, 3):
        ids = k_per_group(source.ids, city_of, k, seed=0)
        assert {city: len(chosen) for city, chosen in ids.items()} == {"aachen": k, "bochum": k, "ulm": k}
        assert all(city_of(i) == city for city, chosen in ids.items() for i in chosen)
    with pytest.raises(ValueError, match="Group 'aachen' has 3 images, and K = 4"):
        k_per_group(source.ids, city_of, 4, seed=0)
    with pytest.raises(DataError, match=r"'frame_1' is not of Cityscapes' form .*Restore the name"):
        city_of("frame_1")


def test_the_published_counts_and_the_one_shot_list():
    assert {split: sum(counts.values()) for split, counts in IMAGES_PER_CITY.items()} == {"train": 2975, "val": 500}
    assert sorted(city_of(i) for i in PIXDA_ONE_SHOT) == sorted(IMAGES_PER_CITY["train"])
    assert len(IMAGES_PER_CITY["train"]) == 18


def test_a_name_that_tells_no_city(small):
    for path in (small / "Cityscapes").rglob("ulm_000082_*"):
        path.rename(path.with_name(path.name.replace("ulm_000082_000019", "frame1")))
    with pytest.raises(DataError, match=r"'frame1' is not of Cityscapes' form"):
        cityscapes(small)


# GTA5


def test_gta5_pixels_by_palette_index(drawn):
    root, maps = drawn
    source = gta5.gta5(root, size=fixture.SIZE)
    assert source.ids == fixture.GTA5_IDS
    with Image.open(source.files_of("00001")[1]) as stored:
        assert stored.mode == "P"
        assert np.array_equal(np.asarray(stored), maps["GTA5"]["00001"])
        assert not np.array_equal(np.asarray(stored.convert("L")), maps["GTA5"]["00001"])
    assert 34 in maps["GTA5"]["00001"]
    check_pixels(source.restricted(i for i in source.ids if i != fixture.SHORT), maps["GTA5"], CITYSCAPES_NUMBERS)
    assert source.images([fixture.VOID_ONLY]).labels.unique().tolist() == [VOID]
    short = gta5.gta5(root, size=(30, 64)).images([fixture.SHORT]).labels[0]
    assert np.array_equal(short.numpy(), expected(maps["GTA5"][fixture.SHORT], CITYSCAPES_NUMBERS))
    assert source.images([fixture.SHORT]).labels.shape == (1, *fixture.SIZE)


def test_frames_with_label_maps_of_another_size_are_left_out_aloud(small, monkeypatch):
    fixture.save(small / "GTA5" / "labels" / "15188.png", fixture.blocks(0, 35, (30, 64)), palette=True)
    with pytest.warns(UserWarning, match=r"1 of 5 frames are left out.* another size than the image: 15188\."):
        source = gta5.gta5(small)
    assert source.ids == fixture.GTA5_IDS[:4]
    monkeypatch.setattr(gta5, "MISMATCHES", 0)
    with pytest.raises(DataError, match=r"15188\.png: the image is 64 x 32 pixels, .*In the release 0 of 24966 are so"):
        gta5.gta5(small)


# SYNTHIA


@pytest.mark.parametrize("lanes", [False, True])
def test_synthia_pixels(drawn, lanes):
    root, maps = drawn
    source = synthia.synthia(root, size=fixture.SIZE, lane_marking_is_road=lanes)
    assert (source.name, source.domain) == ("synthia_lanes" if lanes else "synthia", "synthia")
    numbers = {number: list(CLASS_NAMES.values()).index(name) for number, name in SYNTHIA_NAMES.items()}
    check_pixels(source, maps["SYNTHIA"], numbers | ({22: 0} if lanes else {}))
    patch = source.images([fixture.LANES]).labels[0, 20:26, 30:40]
    assert patch.unique().tolist() == [0 if lanes else VOID]


def test_pillow_alone_sees_no_class(drawn):
    root, maps = drawn
    for image_id, path in ((i, synthia.synthia(root).files_of(i)[1]) for i in fixture.SYNTHIA_IDS):
        with Image.open(path) as image:
            assert (image.mode, np.asarray(image)[..., 0].max()) == ("RGB", 0)
        assert np.array_equal(synthia.read_red_16_bit(path).numpy(), maps["SYNTHIA"][image_id])


@pytest.mark.parametrize("filters", [(0,), (1,), (2,), (3,), (4,), (4, 3, 1, 2, 0)])
def test_all_16_bits_under_every_filter(tmp_path, filters):
    values = np.random.default_rng(0).integers(0, 65_536, (9, 13))
    fixture.save_16_bit(tmp_path / "a.png", values, filters)
    assert np.array_equal(synthia.read_red_16_bit(tmp_path / "a.png").numpy(), values)


def test_label_maps_that_lost_their_16_bits(small):
    path = small / "SYNTHIA" / FILES["SYNTHIA"][1]
    numbers = fixture.blocks(0, 22)
    grey = zlib.compress(b"".join(b"\0" + row.astype(">u2").tobytes() for row in numbers))
    eight_bits = np.zeros((*fixture.SIZE, 3), dtype=np.uint8)
    for content in ("RGB", "L", "16-bit grey", "JPEG"):
        if content == "16-bit grey":
            path.write_bytes(fixture.png(64, 32, 16, 0, grey))
        elif content == "JPEG":
            Image.fromarray(eight_bits).save(path, format="JPEG")
        else:
            fixture.save(path, eight_bits if content == "RGB" else numbers)
        with pytest.raises(DataError, match=r"9399\.png is not a PNG with three channels of 16 bits.*classes are lost"):
            synthia.synthia(small).images(["0009399"])


@pytest.mark.parametrize("scale", [256, 257])
def test_classes_in_the_wrong_byte(small, scale):
    fixture.save_16_bit(small / "SYNTHIA" / FILES["SYNTHIA"][1], fixture.blocks(0, 22).astype(int) * scale)
    with pytest.raises(DataError, match=r"9399\.png holds the values \[\d{3,4}, .*hold 0 to 22"):
        synthia.synthia(small).images(["0009399"])


# What goes wrong in all three


@pytest.mark.parametrize("name", OPEN)
def test_without_data_the_message_says_how_to_get_it(tmp_path, monkeypatch, name):
    monkeypatch.setenv("FSSLIB_DATA", str(tmp_path / "empty"))
    with pytest.raises(DataError) as caught:
        OPEN[name]()
    where = {"Cityscapes": "www.cityscapes-dataset.com", "GTA5": "download.visinf", "SYNTHIA": "synthia-dataset.net"}
    parts = ("is not complete: there is no folder", str(tmp_path / "empty" / name), where[name], "FSSLIB_DATA")
    assert all(part in str(caught.value) for part in (*parts, "toy streets"))
    assert not re.search(r"[{}]", str(caught.value))


@pytest.mark.parametrize("name", OPEN)
@pytest.mark.parametrize(("kind", "missing"), [(0, "image"), (1, "label map")])
def test_a_file_without_its_other_half(small, name, kind, missing):
    (small / name / FILES[name][kind]).unlink()
    other = Path(FILES[name][1 - kind]).name
    with pytest.raises(DataError, match=rf"{re.escape(other)} has no {missing} of its name below .*{name}\. Unpack"):
        OPEN[name](small)
    for path in (small / name / FILES[name][kind]).parent.iterdir():
        path.unlink()
    with pytest.raises(DataError, match=rf"has no {missing} .*{name}\. \d more like it\."):
        OPEN[name](small)
    for path in (small / name).rglob("*.[pP][nN][gG]"):
        path.unlink()
    with pytest.raises(DataError, match=r"holds no image that ends in .*png"):
        OPEN[name](small)


@pytest.mark.parametrize("name", OPEN)
@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("content", ["empty", "head", "half", "tail", "flipped", "text"])
def test_a_damaged_file_is_named(small, name, kind, content):
    path = small / name / FILES[name][kind]
    whole, middle = path.read_bytes(), path.stat().st_size // 2
    contents = {"empty": b"", "head": whole[:40], "half": whole[:middle], "tail": whole[:-25], "text": b"<html>404"}
    contents["flipped"] = whole[:43] + bytes(byte ^ 255 for byte in whole[43:60]) + whole[60:]
    path.write_bytes(contents[content])
    with pytest.raises(DataError, match=rf"{re.escape(path.name)} cannot be read .*restore it from the archive"):
        OPEN[name](small, size=fixture.SIZE).images([FILES[name][2]])


@pytest.mark.parametrize(("name", "highest"), [("Cityscapes", 33), ("GTA5", 34), ("SYNTHIA", 22)])
def test_numbers_that_no_class_has(small, name, highest):
    path, numbers = small / name / FILES[name][1], fixture.blocks(0, 20)
    numbers[0, 0], numbers[0, 1] = highest + 1, 255
    (fixture.save_16_bit if name == "SYNTHIA" else fixture.save)(path, numbers)
    message = rf"{re.escape(path.name)} holds the values \[{highest + 1}, 255\]; .* hold 0 to {highest}\. .*restore it"
    with pytest.raises(DataError, match=message):
        OPEN[name](small).images([FILES[name][2]])


@pytest.mark.parametrize("name", ["Cityscapes", "GTA5"])
def test_label_maps_in_colours(small, name):
    fixture.save(small / name / FILES[name][1], fixture.photograph(fixture.blocks(0, 20)))
    with pytest.raises(
        DataError, match=r"is stored in mode RGB, as a picture, and .* nothing\. .*restore the file as published"
    ):
        OPEN[name](small).images([FILES[name][2]])


@pytest.mark.parametrize("name", ["Cityscapes", "SYNTHIA"])
def test_a_label_map_of_another_size_than_its_image(small, name):
    save = fixture.save_16_bit if name == "SYNTHIA" else fixture.save
    save(small / name / FILES[name][1], fixture.blocks(0, 20, (30, 64)))
    with pytest.raises(DataError, match=rf"{FILES[name][2]}: the image is 64 x 32 pixels, its label map 64 x 30"):
        OPEN[name](small).images([FILES[name][2]])

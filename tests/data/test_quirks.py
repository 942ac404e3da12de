"""What is special about single data sets: what no pattern says, and what real copies of them have beside it. 6 s."""

import csv
import re
import shutil
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fsslib.data.catalogue import CATALOGUE
from fsslib.data.decode import DataError, noting
from fsslib.data.layouts import Layout, find, read_labels
from fsslib.data.masks import read_mask
from fsslib.data.names import ALIASES, CLASS_IDS, class_id
from fsslib.data.quirks import DRIVES, city_of_each, drive_of_each, read_red_16_bit, tiles
from fsslib.data.sampling import k_per_group
from fsslib.data.sets import LAYOUTS, PIXDA_ONE_SHOT, SUBSETS, joined, open_images
from fsslib.episodes import VOID
from fsslib.metrics import SegmentationMeter
from tests.data import trees
from tests.data.encoded import save_16_bit


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr("fsslib.data.cache.cache_root", lambda: tmp_path / "cache")
    return tmp_path


def opened(name, root, draw=None, **options):
    (draw or trees.TREES[name])(root)
    return open_images(name, root=root, size=32, **options)


# Names of classes


def test_ids_are_one_to_one_and_fit_a_byte():
    assert list(CLASS_IDS.values()) == list(range(1, len(CLASS_IDS) + 1))
    assert max(CLASS_IDS.values()) < VOID
    assert [name for name, c in LAYOUTS["pascal"].ids.items() if name != c] == []
    assert class_id("truck") == 21
    assert class_id("toothbrush") == 80
    assert all(class_id(other) == class_id(name) for other, name in ALIASES.items())
    assert not ALIASES.keys() & CLASS_IDS.keys()
    with pytest.raises(KeyError):
        class_id("dragon of no set")


# VOC: lists


@pytest.mark.parametrize(
    "line",
    [
        "2007_000001\n",
        "2007_000001\r\n\r\n2007_000001\r\n",
        "2007_000001__12\n",
        "JPEGImages/2007_000001.jpg SegmentationClassAug/2007_000001.png\n",
        "\ufeff/JPEGImages/2007_000001.jpg /SegmentationClassAug/2007_000001.png",
    ],
)
def test_lists_of_all_dialects_name_the_same_image(root, line):
    trees.draw_pascal(root)
    trees.text(root / "VOCdevkit/VOC2012/splits/other.txt", line)
    assert open_images("pascal", root=root, size=32, part="splits/other.txt").ids == ("2007_000001",)


def test_the_parts_of_voc_are_its_lists(root):
    everything = opened("pascal", root)
    train, val = (open_images("pascal", root=root, size=32, part=part) for part in ("trainaug", "val"))
    assert (train.ids, val.ids) == (everything.ids[:4], everything.ids[4:])


@pytest.mark.parametrize(
    ("name", "part", "file", "content", "said"),
    [
        ("pascal", "train", None, None, r"train.txt does not exist; its folder holds: trainaug.txt, val.txt. Restore"),
        ("pascal", None, "trainaug.txt", "\n \n", None),
        ("pascal", "trainaug", "trainaug.txt", "\n \n", r"lists name no image: .*trainaug.txt\. Restore"),
        ("pascal", None, "val.txt", "2007_000001\n2009_1\n", r"val.txt, line 2, names 2009_1, but .*no image of that"),
        ("camvid", None, "test.txt", "", None),
        ("camvid", "test", "test.txt", "", r"lists name no image: .*test.txt\. Restore"),
        ("camvid", None, "val.txt", "val/a.png\n", r"val.txt, line 1, should hold an image and its .* found: 'val/a.p"),
        (
            "camvid",
            None,
            "val.txt",
            "val/0016E5_1.png valannot/0016E5_1.png",
            "line 1, names 0016E5_1, but there is no",
        ),
    ],
)
def test_lists_that_are_not_as_published(root, name, part, file, content, said):
    trees.TREES[name](root)
    if file is not None:
        next(root.rglob(file)).write_text(content)
    if said is None:  # another list still names images
        assert len(open_images(name, root=root, size=32, part=part)) > 0
        return
    with pytest.raises(DataError, match=said):
        open_images(name, root=root, size=32, part=part)


def test_without_any_list_it_says_where_they_come_from(root):
    trees.draw_pascal(root)
    shutil.rmtree(root / "VOCdevkit/VOC2012/ImageSets")
    with pytest.raises(DataError, match=r"holds none of trainaug.txt, train.txt, val.txt. train.txt and val.txt come"):
        open_images("pascal", root=root)


# CamVid: drives


def test_the_drive_is_in_the_name(root):
    images = opened("camvid", root)
    assert set(images._groups.values()) == set(DRIVES)
    assert drive_of_each(["0001TP_006690"]) == {"0001TP_006690": "0001TP"}
    with pytest.raises(DataError, match=r"image 'train_00001' .* tells no drive of CamVid \(0006R0, .* current one"):
        drive_of_each(["train_00001"])


# SUIM: colours, and masks larger than their image


def test_one_part_is_enough_and_a_published_mask_goes_before_a_copy(root):
    trees.draw_suim(root)
    shutil.rmtree(root / "SUIM" / "train_val")
    images = open_images("suim", root=root, size=32)
    assert all(i.startswith("TEST/") for i in images.ids)
    trees.eight_colours(root / "SUIM/TEST/masks/d_r_1_.png", np.full(trees.SIZE, 7))
    again = open_images("suim", root=root, size=32)
    assert torch.equal(again.original("TEST/d_r_1_")[1], images.original("TEST/d_r_1_")[1])
    assert class_id("diver") == class_id("person")


@pytest.mark.parametrize(
    ("below", "right", "fits"), [(4, 4, True), (9, 0, True), (0, 6, True), (5, 5, False), (10, 0, False), (0, 7, False)]
)
def test_a_mask_that_is_a_little_larger_or_longer_is_cropped_and_counted(root, below, right, fits):
    trees.draw_suim(root)
    path = root / "SUIM/TEST/masks/d_r_1_.bmp"
    height, width = np.asarray(Image.open(path)).shape[:2]
    codes = np.full((height + below, width + right), 7)
    codes[:height, :width] = 6
    trees.eight_colours(path, codes)
    if fits:
        images = open_images("suim", root=root, size=32)
        assert images.original("TEST/d_r_1_")[1].unique().tolist() == [class_id("fish")]
        alone, cropped = images.notes
        assert alone == "1 images have no label map and are left alone."
        assert cropped == "1 masks are larger than their image and cropped to it: TEST/d_r_1_."
    else:
        with pytest.raises(DataError, match=f"d_r_1_.bmp: the image is {width} x {height} pixels, its label map"):
            open_images("suim", root=root, size=32)


# MagneticTile: tiles


def test_numbers_that_follow_each_other_are_one_tile():
    ids = [f"exp{n}_num_{number}" for n, number in enumerate((900, 100, 599, 1100, 2000))] + ["MT_1"]
    found = tiles(ids)
    assert Counter(found.values()) == {"tile 100": 4, "tile 2000": 1, "MT_1": 1}
    assert tiles(["a_num_100", "b_num_600"]) == {"a_num_100": "tile 100", "b_num_600": "tile 600"}


def test_a_defect_without_images_is_missed(root):
    trees.draw_tiles(root)
    shutil.rmtree(root / "MagneticTile" / "MT_Fray")
    with pytest.raises(DataError, match=r"magnetic_tile is not complete: there is no .*MT_Fray/Imgs/\*\.png"):
        open_images("magnetic_tile", root=root)


# FSS-1000: parts, classes of other sets, what the release has beside


def test_parts_of_fss_1000_hold_their_own_and_its_ids_are_of_all_sets(root):
    everything = opened("fss_1000", root)
    parts = [open_images("fss1000", root=root, size=32, part=part).ids for part in ("val", "test")]
    assert sorted(i for ids in parts for i in ids) == list(everything.ids)
    assert {i.partition("/")[0] for i in parts[1]} == {"accordion", "diver"}
    with pytest.raises(DataError, match=r"fss_1000, part trn, has no image with a label map below .*\n?.*To get it"):
        open_images("fss1000", root=root, part="trn")
    assert everything.class_names == {15: "person", 23: "fire hydrant", 2002: "abacus", 2006: "accordion"}
    labels = everything.episode(everything.sample([2002], 2)).query_class_map
    assert set(labels.unique().tolist()) == {0, 2002}
    voc = opened("pascal", root)
    assert "pascal/2007_000001" in joined([everything, voc], name="both", domain="photo").images_by_class[15]


def test_images_of_the_release_that_are_none_are_left_out(root):
    tree = trees.draw_fss(root)
    for folder, number in (("bamboo_slip", 7), ("bamboo_slip", 8)):
        for suffix, path in ((".jpg", tree.images["abacus/1"]), (".png", tree.maps["abacus/1"][0])):
            copy = root / "FSS-1000" / folder / f"{number}{suffix}"
            copy.parent.mkdir(exist_ok=True)
            shutil.copy(path, copy)
    found = open_images("fss_1000", root=root, size=32).ids
    assert "bamboo_slip/8" in found
    assert "bamboo_slip/7" not in found


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_masks_of_fss_1000_come_in_many_modes_and_images_in_cmyk(root, mode):
    tree = trees.draw_fss(root)
    for path, kind in ((tree.maps["abacus/1"][0], mode), (tree.images["abacus/1"], "CMYK")):
        with Image.open(path) as image:
            converted = image.convert(kind)
        converted.save(path)
    image, labels = open_images("fss_1000", root=root, size=32).original("abacus/1")
    with Image.open(tree.images["abacus/1"]) as found:
        assert np.array_equal(image.permute(1, 2, 0), np.asarray(found.convert("RGB")))
    assert np.array_equal(labels, tree.labels["abacus/1"])


def test_an_image_with_an_empty_mask_is_listed_and_never_drawn(root):
    tree = trees.draw_fss(root)
    trees.white(tree.maps["abacus/1"][0], np.zeros_like(tree.labels["abacus/1"]))
    images = open_images("fss_1000", root=root, size=32)
    assert images.contents["abacus/1"].held == frozenset()
    assert images.images_by_class[2002] == ("abacus/10", "abacus/2")


# DeepGlobe: several masks an image


def test_masks_of_a_crop_that_overlap(root):
    tree = trees.draw_deepglobe(root)
    first, second, _ = tree.maps["119_sat_00"]
    shutil.copy(first, second)
    with pytest.raises(DataError, match=f"{second} overlaps another class's mask of this image. Cut or unpack"):
        open_images("deepglobe", root=root, size=32)


def test_crops_that_were_cut_here_go_before_others_and_are_held_against_their_list(root):
    tree = trees.draw_deepglobe(root)
    cut = root / "Deepglobe" / "04_train_cat"
    listed = []
    for crop in ("119_sat_00", "119_sat_35"):
        for path in tree.maps[crop]:
            number = path.parents[2].name
            listed.append(f"{number}/{crop}\n")
            for source, kind in ((tree.images[crop], "origin"), (path, "groundtruth")):
                name = source.name.replace("_sat_", "_mask_") if kind == "groundtruth" else source.name
                (cut / number / "test" / kind).mkdir(parents=True, exist_ok=True)
                shutil.copy(source, cut / number / "test" / kind / name)
    (cut / "crops.txt").write_text("".join(listed))
    images = open_images("deepglobe", root=root, size=32)
    assert images.ids == ("119_sat_00", "119_sat_35")
    assert np.array_equal(images.original("119_sat_35")[1], tree.labels["119_sat_35"])
    for lines, said in ((listed[1:], "is not on the list"), ([*listed, "4/9_sat_00\n"], "9_sat_00 is missing")):
        (cut / "crops.txt").write_text("".join(lines))
        with pytest.raises(
            DataError, match=rf"does not list the crops there: .*{said}.* Delete .*04_train_cat and cut"
        ):
            open_images("deepglobe", root=root, size=32)


# ISIC: the table of kinds


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows[:-1], r"class of ISIC_0000005 is not known: .*class_id.csv does not list it"),
        (lambda rows: [*rows, "ISIC_9,mole"], r"class_id.csv, line 8: 'ISIC_9,mole' is not an image and one of nevus"),
        (lambda rows: [*rows, "ISIC_9"], r"line 8: 'ISIC_9' is not an image"),
        (lambda rows: ["\x00"], "is not an image and one of|is no table"),
        (lambda rows: [*rows, "ISIC_9,nävus"], r"class_id.csv is no table in UTF-8 .* Copy the published file again"),
        (None, r"isic is not complete: there is no .*class_id.csv"),
    ],
)
def test_a_table_of_kinds_that_does_not_tell(root, change, said):
    trees.draw_isic(root)
    path = root / "ISIC" / "class_id.csv"
    rows = path.read_text(encoding="utf-8-sig").splitlines()
    assert next(csv.reader(rows))[0] == "ID"
    path.unlink() if change is None else path.write_bytes("\n".join(change(rows)).encode("latin-1"))
    with pytest.raises(DataError, match=said):
        open_images("isic", root=root, size=32)


# A layout that no set has yet

ANIMALS = {"a": ("cat",), "b": ("cat", "dog"), "c": ("dog",)}


def test_masks_in_a_folder_for_each_class_beside_one_folder_of_images(tmp_path):
    layout = Layout(
        "x", ["x/images/{name}.jpg"], ["x/masks/{class}/{name}.png"], {"cat": "cat", "dog": "dog"}, read=read_mask
    )
    files = {n: (f"x/images/{n}.jpg", {c: f"x/masks/{c}/{n}.png" for c in shown}) for n, shown in ANIMALS.items()}
    tree = trees.masks(tmp_path, files)
    places = find(layout, tmp_path).files
    assert {n: set(place.labels) for n, place in places.items()} == {n: set(shown) for n, shown in ANIMALS.items()}
    for n, place in places.items():
        assert np.array_equal(read_labels(place, layout.ids), tree.labels[n])


# Chest X-rays: the part that published numbers are of


def test_the_x_rays_of_the_benchmark_are_those_of_one_hospital(root):
    everything = opened("chest_xray", root)
    shenzhen = open_images("chest_xray_shenzhen", root=root, size=32)
    assert shenzhen.ids == tuple(i for i in everything.ids if i.startswith("CHNCXR"))
    assert (shenzhen.name, shenzhen.domain) == ("chest_xray_shenzhen", "chest_xray")
    assert len(everything) == 5


# Streets


def test_classes_and_views_of_a_score():
    for layout in ("cityscapes", "gta5", "synthia", "synthia_lanes"):
        numbers = LAYOUTS[layout]
        assert len(set(numbers.places.values())) == 19
        names = dict(zip(numbers.places.values(), numbers.classes.values()))
        assert names == dict(zip(LAYOUTS["cityscapes"].places.values(), LAYOUTS["cityscapes"].classes.values()))
    left_out = {n: [names[c] for c in range(19) if c not in kept] for n, kept in SUBSETS.items()}
    assert left_out == {
        19: [],
        16: ["terrain", "truck", "train"],
        13: ["wall", "fence", "pole", "terrain", "truck", "train"],
    }
    meter = SegmentationMeter(names)
    meter.update(torch.arange(19)[None, None].clamp(max=9), torch.arange(19)[None, None])
    assert meter.miou_of(SUBSETS[13]) < meter.miou_of(SUBSETS[19])


def test_train_ids_are_read_where_there_are_no_label_ids(root):
    numbers = {0: "road", 1: "pavement", 7: "sign", 11: "person", 18: "bicycle", VOID: VOID}

    def draw(root):
        files = {
            i: (f"{i.partition('_')[0]}/{i}_leftImg8bit.png", f"{i.partition('_')[0]}/{i}_gtFine_labelTrainIds.png")
            for i in trees.CITY_IDS["train"]
        }
        places = ("Cityscapes/leftImg8bit/train/", "Cityscapes/gtFine/train/")
        files = {i: tuple(place + file for place, file in zip(places, pair)) for i, pair in files.items()}
        return trees.maps(root, files, numbers, trees.grey, ground=VOID)

    tree = draw(root)
    images = open_images("cityscapes", root=root, size=32)
    assert all(np.array_equal(images.original(i)[1], labels) for i, labels in tree.labels.items())
    path = tree.maps["ulm_000000_000019"][0]
    trees.grey(path, np.full((48, 64), 19))
    with pytest.raises(DataError, match=r"holds the values \[19\]; label maps of cityscapes in train ids hold 0 to 18"):
        open_images("cityscapes", root=root, size=32)


def test_k_images_of_every_city_and_pixdas_own(root):
    images = opened("cityscapes", root)
    groups = city_of_each(images.ids)
    drawn = k_per_group(images.ids, groups.__getitem__, 2, seed=0)
    assert {city: len(ids) for city, ids in drawn.items()} == {"aachen": 2, "bochum": 2, "ulm": 2}
    assert len(set(city_of_each(PIXDA_ONE_SHOT).values())) == len(PIXDA_ONE_SHOT) == 18
    assert CATALOGUE["cityscapes"].images == 2975
    path = next((root / "Cityscapes/leftImg8bit/train/ulm").glob("*"))
    name = path.name.removesuffix("_leftImg8bit.png")
    path.rename(path.with_name("ulm_1_leftImg8bit.png"))
    label = root / "Cityscapes/gtFine/train/ulm" / f"{name}_gtFine_labelIds.png"
    label.rename(label.with_name("ulm_1_gtFine_labelIds.png"))
    with pytest.raises(DataError, match=r"'ulm_1' is not of the set's form. Cityscapes has city_sequence_frame"):
        open_images("cityscapes", root=root)


def test_grey_train_ids_in_gta5_are_read_as_other_numbers_and_255_among_them_is_refused(root):
    """A limit: nothing in the file tells that its 7 is train id 7, a traffic sign, and not number 7, the road."""
    tree = trees.draw_gta5(root)
    path = tree.maps["00001"][0]
    trees.grey(path, np.full(trees.SIZE, 7))
    assert open_images("gta5", root=root, size=32).original("00001")[1].unique().tolist() == [class_id("road")]
    trees.grey(path, np.where(np.arange(64) < 9, 255, np.full(trees.SIZE, 7)))
    with pytest.raises(DataError, match=r"00001.png holds the values \[255\]; label maps of gta5 hold 0 to 34"):
        open_images("gta5", root=root, size=32)


def test_more_frames_of_other_sizes_than_the_release_has_are_a_damaged_copy(root, monkeypatch):
    monkeypatch.setattr("fsslib.data.quirks.GTA5_MISMATCHES", 1)
    tree = trees.draw_gta5(root)
    for name in ("00001", "00002"):
        trees.in_palette(bytes(768))(tree.maps[name][0], np.zeros((30, 64)))
    with pytest.raises(DataError, match=r"00001.png: the image is 64 x 48 pixels.*1 more like it. In the release 1 fr"):
        open_images("gta5", root=root)


def test_lane_markings_are_void_or_road(root):
    tree = trees.draw_synthia(root)
    path = tree.maps["0000001"][0]
    numbers = np.full_like(tree.labels["0000001"], 3)
    numbers[20:26, 30:40] = 22
    save_16_bit(path, numbers)
    plain, lanes = (open_images(name, root=root, size=(48, 64)) for name in ("synthia", "synthia_lanes"))
    assert (lanes.name, lanes.domain) == ("synthia_lanes", "synthia")
    assert (lanes.original("0000001")[1] == 0).all()
    assert ((plain.original("0000001")[1] == VOID).numpy() == (numbers == 22)).all()
    assert all(torch.equal(plain.original(i)[1] == 4, lanes.original(i)[1] == 4) for i in plain.ids)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=6), st.integers(0, 99))
def test_all_16_bits_under_every_filter(tmp_path_factory, filters, seed):
    red = np.random.default_rng(seed).integers(0, 65_536, (5, 7))
    path = tmp_path_factory.mktemp("png") / "a.png"
    save_16_bit(path, red, tuple(filters))
    assert np.array_equal(read_red_16_bit(path), red)
    with Image.open(path) as image:  # why it is read twice: Pillow alone keeps the upper byte
        assert np.array_equal(np.asarray(image)[..., 0], red >> 8)


@pytest.mark.parametrize("mode", ["RGB", "L", "P"])
def test_label_maps_that_lost_their_16_bits(root, mode):
    tree = trees.draw_synthia(root)
    Image.new(mode, (64, 48)).save(tree.maps["0000001"][0])
    with pytest.raises(DataError, match=rf"not a PNG with three channels of 16 bits, but PNG in mode {mode} .*restore"):
        open_images("synthia", root=root, size=32)


# All at once


def test_two_files_of_one_name_but_for_capitals(root):
    tree = trees.draw_kvasir(root)
    path = tree.images["cju1"]
    shutil.copy(path, path.with_suffix(".JPG"))
    with pytest.raises(DataError, match=r"cju1\.JPG and .*cju1\.jpg have one name. Remove the one"):
        open_images("kvasir", root=root)
    with noting() as noted:
        assert len(open_images("kvasir", root=root)) == 4
    assert re.search("have one name", " ".join(noted.values()))

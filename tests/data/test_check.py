"""A check counts what is there, names what is damaged, and draws what people look at."""

import re

import numpy as np
import pytest
from PIL import Image

from fsslib.cli import main
from fsslib.data import READERS, coco, open_images
from fsslib.data import check as check_module
from fsslib.data.camvid import camvid
from fsslib.data.check import (
    OPENERS,
    PUBLISHED_IMAGES,
    SHEET,
    SIDE,
    check,
    class_colour,
    hold_against_published,
    open_set,
)
from fsslib.data.images import DataError
from fsslib.data.names import class_id
from fsslib.data.pascal import PascalVOC
from fsslib.data.sources import ENTRIES
from fsslib.data.splits import coco_fold
from tests.data import street_fixture
from tests.data.camvid_fixture import draw_camvid
from tests.data.test_coco import draw_coco
from tests.data.test_magnetic_tile import draw_tiles
from tests.data.test_masks import TABLE, add_lesion, add_pair, fss_files
from tests.data.test_suim import add_scene
from tests.data.voc_fixture import add_image, add_list, draw_voc


@pytest.fixture
def tree(tmp_path):
    """Three images of 60 x 45 pixels, of which one has a dog of 100 pixels and no void, and one no class at all."""
    add_image(tmp_path, "2007_000001", [(12, (10, 10, 20, 20))], void_border=False)
    add_image(tmp_path, "2007_000002", [(12, (5, 5, 30, 30)), (8, (10, 35, 40, 55))])
    add_image(tmp_path, "2007_000003", [])
    add_list(tmp_path, "train", [f"2007_00000{n}" for n in (1, 2, 3)])
    return tmp_path


def test_images_sizes_classes_and_void_are_counted(tree):
    voc = PascalVOC(tree, size=32)
    report = check(voc)
    assert report.images == 3
    assert report.sizes == {(45, 60): 3}
    assert (report.images_by_class[12], report.images_by_class[8]) == (2, 1)
    assert report.pixels_by_class[12] == 100 + 25 * 25
    assert report.pixels_by_class.total() == 3 * 45 * 60
    assert report.empty == ["2007_000003"]
    assert report.damaged == {}
    text = str(report)
    assert "3 images" in text
    assert "60 x 45 pixels" in text
    assert "1 images show nothing of any class" in text
    assert "damaged   none" in text


def test_the_hash_is_that_of_the_list(tree):
    voc = PascalVOC(tree, size=32)
    everything = check(voc).sha256
    assert check(voc).sha256 == everything
    assert check(voc.restricted(voc.ids[:2])).sha256 != everything


def test_damage_is_named_and_the_rest_is_counted(tree):
    voc = PascalVOC(tree, size=32)
    path = voc._image_path("2007_000002")
    path.write_bytes(path.read_bytes()[:-200])
    report = check(voc)
    assert list(report.damaged) == ["2007_000002"]
    assert path.name in str(report)
    assert "DAMAGED   1 files" in str(report)
    assert report.sizes.total() == 2


def test_labels_that_are_no_class_of_the_set_are_damage(tree):
    voc = PascalVOC(tree, size=32)
    mask = voc._label_path("2007_000001")
    with Image.open(mask) as image:
        changed = image.point(lambda value: 33 if value == 12 else value)
        changed.save(mask)
    assert "holds [33]" in check(voc).damaged["2007_000001"]


def test_the_sheet_shows_the_classes_in_their_colours(tree, tmp_path):
    voc = PascalVOC(tree, size=32)
    report = check(voc, sheet=tmp_path / "sheets" / "voc.png")
    with Image.open(report.sheet) as sheet:
        assert sheet.width == 3 * (SIDE + 10)
        assert sheet.height == SIDE + 42
        second = np.asarray(sheet.crop((SIDE + 10, 0, 2 * (SIDE + 10), SIDE)), dtype=int)
    # Half of what is seen is the class's colour, half the picture: where the dog is, no pixel is far from its colour.
    distance = np.abs(second - np.array(class_colour(12))).sum(-1)
    assert (distance < 250).sum() > 100
    assert str(report.sheet) in str(report)


def test_a_sheet_of_many_images_is_full_and_no_larger(tree, tmp_path):
    ids = [f"2008_{n:06d}" for n in range(SHEET[0] * SHEET[1] + 7)]
    for image_id in ids:
        add_image(tree, image_id, [(12, (10, 10, 20, 20))])
    add_list(tree, "train", ids)
    report = check(PascalVOC(tree, size=32), sheet=tmp_path / "sheet.png")
    with Image.open(report.sheet) as sheet:
        assert sheet.size == (SHEET[0] * (SIDE + 10), SHEET[1] * (SIDE + 42))


def draw_pairs(image: str, mask: str):
    """Draws six images with masks at these places, where * stands for a number."""
    return lambda root: [add_pair(root / image.replace("*", n), root / mask.replace("*", n)) for n in "123456"]


def draw_isic(root):
    for name in ("ISIC_0000000", "ISIC_0000004", "ISIC_0010181"):
        add_lesion(root, name)
    (root / "ISIC" / "class_id.csv").write_bytes(TABLE.encode())


DRAW = {
    "pascal": draw_voc,
    "coco": draw_coco,
    "camvid": draw_camvid,
    "magnetic_tile": draw_tiles,
    "suim": lambda root: [add_scene(root, name) for name in "abcde"],
    "fss1000": lambda root: [add_pair(*fss_files(root, f"taxi/{n}")) for n in range(1, 6)],
    "deepglobe": draw_pairs("Deepglobe/*/test/origin/*_sat_00.jpg", "Deepglobe/*/test/groundtruth/*_sat_00.png"),
    "isic": draw_isic,
    "chest_xray": draw_pairs("LungSegmentation/CXR_png/CHNCXR_*.png", "LungSegmentation/masks/CHNCXR_*_mask.png"),
    "kvasir": draw_pairs("Kvasir-SEG/images/*.jpg", "Kvasir-SEG/masks/*.jpg"),
    "cityscapes": street_fixture.draw_cityscapes,
    "gta5": street_fixture.draw_gta5,
    "synthia": street_fixture.draw_synthia,
}


def test_every_reader_is_tried():
    assert DRAW.keys() == {name for name in READERS.keys() | OPENERS.keys() if "coco_" not in name}


@pytest.fixture
def drawn(request, tmp_path, monkeypatch):
    """A small set below FSSLIB_DATA, opened."""
    monkeypatch.setattr(coco, "cache_root", lambda: tmp_path / "cache")
    monkeypatch.setenv("FSSLIB_DATA", str(tmp_path))
    DRAW[request.param](tmp_path)
    images, damaged = open_set(request.param)
    assert damaged == {}
    return request.param, images


@pytest.mark.parametrize("drawn", DRAW, indirect=True)
def test_all_damaged_files_are_named_and_the_rest_is_counted_and_drawn(drawn, tmp_path, capsys):
    name, images = drawn
    (_, labels), (blank, _), (gone, _) = hurt = [images.files_of(images.ids[at])[:2] for at in (-1, 0, 1)]
    labels.write_bytes(labels.read_bytes()[: labels.stat().st_size // 2])
    blank.write_bytes(b"")
    gone.unlink()
    if name == "coco":  # label maps are the reader's own: the outlines are what can be damaged
        images.annotations.write_text(images.annotations.read_text().replace("[[5, 45,", "[[5, null,"))
    sheet = tmp_path / "sheet.png"
    assert main(["data", "check", name, "--sheet", str(sheet)]) == 1
    said = capsys.readouterr().out
    assert "DAMAGED   3 files" in said
    for files in hurt:
        assert len(re.findall("|".join(rf"[/ ]{path.name}[ ,]" for path in files), said)) == 1
    assert " images, list sha256 " in said
    assert sheet.exists() == (name != "isic"), "of three lesions none is left"
    if name in READERS and name != "camvid":
        with pytest.raises(DataError):
            open_images(name)


def test_a_set_of_which_nothing_is_left_names_its_files(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FSSLIB_DATA", str(tmp_path))
    for image_id in street_fixture.draw_synthia(tmp_path):
        (tmp_path / "SYNTHIA" / "RAND_CITYSCAPES" / "RGB" / f"{image_id}.png").unlink()
    assert main(["data", "check", "synthia", "--sheet", str(tmp_path / "sheet.png")]) == 1
    said = capsys.readouterr().err
    assert said.count("has no image of its name") == len(street_fixture.SYNTHIA_IDS)
    assert "left without an image" in said


def test_what_a_reader_made_of_odd_files_is_a_remark(tmp_path, monkeypatch):
    add_scene(tmp_path, "d_r_1_")
    add_scene(tmp_path, "f_r_1058_", mask_size=(55, 64))
    monkeypatch.setenv("FSSLIB_DATA", str(tmp_path))
    report = check(*open_set("suim"))
    assert "remark    1 masks are larger than their image and cropped to it: TEST/f_r_1058_." in str(report)


def test_a_sheet_shows_readable_images_in_the_places_of_damaged_ones(tree, tmp_path):
    ids = [f"2008_{n:06d}" for n in range(3 * SHEET[0] * SHEET[1])]
    for image_id in ids:
        add_image(tree, image_id, [(12, (10, 10, 20, 20))])
    add_list(tree, "train", ids)
    voc = PascalVOC(tree, size=32)
    for image_id in ids[::3]:
        voc._image_path(image_id).write_bytes(b"")
    with Image.open(check(voc, sheet=tmp_path / "sheet.png").sheet) as sheet:
        assert sheet.size == (SHEET[0] * (SIDE + 10), SHEET[1] * (SIDE + 42))


def test_driving_sets_are_checked_too(tmp_path):
    draw_camvid(tmp_path)
    report = check(camvid(tmp_path), sheet=tmp_path / "camvid.png")
    assert report.images == len(camvid(tmp_path).ids)
    assert report.images_by_class.keys() <= set(range(11))
    assert report.pixels_by_class[255] > 0
    assert report.sheet.exists()


def test_neighbouring_classes_have_colours_that_differ():
    for number in range(1, 60):
        near, next_one = class_colour(number), class_colour(number + 1)
        assert sum(abs(a - b) for a, b in zip(near, next_one)) > 100


def test_an_unknown_name_lists_those_there_are():
    with pytest.raises(DataError, match="no data set 'kvasr' to check; there are camvid, chest_xray"):
        open_set("kvasr")


def test_every_set_of_the_catalogue_that_is_not_drawn_can_be_checked():
    undrawn = {entry.name for entry in ENTRIES if entry.folder}
    assert undrawn == READERS.keys() | OPENERS.keys()
    assert undrawn >= PUBLISHED_IMAGES.keys()


@pytest.mark.parametrize(
    ("name", "images", "said"),
    [
        ("kvasir", 5, "5 images are here, 1000 are published"),
        ("gta5", 24_900, "24900 images are here, 24966 are published"),
        ("synthia", 9_401, "9401 images are here"),
    ],
)
def test_an_incomplete_set_is_refused_where_completeness_is_asked_for(name, images, said):
    with pytest.raises(DataError, match=said):
        hold_against_published(name, images)


def test_a_complete_set_is_said_to_be_one():
    assert hold_against_published("kvasir", 1000) == ["kvasir: 1000 images, 1000 published."]
    # Frames with a label map of another size are left out of GTA5.
    assert hold_against_published("gta5", 24_906) == ["gta5: 24906 images, 24966 published."]
    assert "not published" in hold_against_published("deepglobe", 7)[0]


def test_pairs_by_fold_are_those_of_the_published_lists_kind(monkeypatch):
    seen = {}
    monkeypatch.setattr(check_module, "check_full", lambda lists, data, part: seen.update({(data, part): lists}) or "")
    pairs = [("a", class_id("person")), ("b", class_id("bicycle"))]
    check_module._hold_pairs(pairs, coco_fold, "coco", "val")
    check_module._hold_pairs(pairs, coco_fold, "coco", "trn")
    assert [len(one) for one in seen["coco", "val"]] == [1, 1, 0, 0]
    assert [len(one) for one in seen["coco", "trn"]] == [1, 1, 2, 2]

"""A check counts what is there, names what is damaged, and draws what people look at."""

import numpy as np
import pytest
from PIL import Image

from fsslib.data.camvid import camvid
from fsslib.data.check import SHEET, SIDE, check, class_colour
from fsslib.data.pascal import PascalVOC
from tests.data.camvid_fixture import draw_camvid
from tests.data.voc_fixture import add_image, add_list


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


def test_driving_sets_are_checked_too(tmp_path):
    draw_camvid(tmp_path)
    report = check(camvid(tmp_path), sheet=tmp_path / "camvid.png")
    assert report.images == len(camvid(tmp_path).ids)
    assert report.images_by_class.keys() <= set(range(11))
    assert report.pixels_by_class[255] > 0
    assert report.sheet.exists()


def test_neighbouring_classes_have_colours_that_differ():
    for class_id in range(1, 60):
        near, next_one = class_colour(class_id), class_colour(class_id + 1)
        assert sum(abs(a - b) for a, b in zip(near, next_one)) > 100

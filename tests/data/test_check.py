"""A check counts what is there, names what is damaged, and draws what people look at."""

import shutil

import numpy as np
import pytest
from PIL import Image

from fsslib.cli import main
from fsslib.data.check import SHEET, SIDE, check, class_colour, hold_against_published, open_set
from fsslib.data.names import class_id
from fsslib.data.sets import open_images
from fsslib.files import DataError
from tests.data import trees

POLYP, PLACE = class_id("polyp"), "Kvasir-SEG/{}/{}.jpg"


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("FSSLIB_DATA", str(tmp_path))
    return tmp_path


def draw_polyps(root, covered: list[float], width: int = 60) -> None:
    """Pictures of polyps in red, of which each covers this share at the left of a black one, 45 pixels high."""
    for n, share in enumerate(covered):
        marked = np.zeros((45, width), dtype=np.uint8)
        marked[:, : round(share * width)] = 255
        trees.grey(root / PLACE.format("masks", f"p{n:03d}"), marked)
        trees.grey(root / PLACE.format("images", f"p{n:03d}"), marked[..., None] * np.array([1, 0, 0]))


def test_images_sizes_classes_and_void_are_counted(root):
    trees.draw_camvid(root)
    images = open_images("camvid", size=32)
    report = check(images)
    labels = [images.original(image_id)[1] for image_id in images.ids]
    for c in (*images.class_names, trees.VOID):
        assert report.pixels_by_class[c] == sum((found == c).sum() for found in labels)
        assert c == trees.VOID or report.images_by_class[c] == sum((found == c).any() for found in labels)
    assert report.pixels_by_class.total() == sum(found.numel() for found in labels)
    void = report.pixels_by_class[trees.VOID] / report.pixels_by_class.total()
    text = str(report)
    assert "camvid: 11 images, list sha256 " in text
    assert f"void      {void:.1%} of all pixels" in text
    assert "sizes     64 x 48 to 64 x 50 pixels, most often 64 x " in text
    assert f"    sky{report.images_by_class[class_id('sky')]:25d}   " in text


def test_images_of_one_size_without_void_and_without_a_class(root):
    draw_polyps(root, [0.5, 0.25, 0])
    report = check(open_images("kvasir", size=32))
    assert report.empty == ["p002"]
    assert report.pixels_by_class[POLYP] == 45 * (30 + 15)
    for line in (
        "kvasir: 3 images",
        "sizes     60 x 45 pixels\n",
        "void      none",
        "no class  1 images show nothing",
        "    polyp                      2   25.00%",
        "damaged   none",
    ):
        assert line in str(report)


def test_the_hash_is_that_of_the_list(root):
    draw_polyps(root, [0.5, 0.5, 0.5])
    images = open_images("kvasir", size=32)
    # By printf 'p000\np001\np002\n' | sha256sum
    assert check(images).sha256 == "b45c090d19650fd84aa48e770cce63b104ebfd5b34f32149d51b7a3540713e4e"
    assert check(images.restricted(images.ids[:2])).sha256 != check(images).sha256


def test_damage_of_images_and_label_maps_is_named_and_the_rest_counted(root, capsys):
    draw_polyps(root, [0.5] * 6)
    cut = root / PLACE.format("images", "p001")
    cut.write_bytes(cut.read_bytes()[:-200])
    (root / PLACE.format("masks", "p002")).write_bytes(b"")
    Image.effect_noise((60, 45), 60).save(root / PLACE.format("masks", "p003"))
    (root / PLACE.format("masks", "p004")).unlink()
    sheet = root / "sheets" / "sheet.png"
    assert main(["data", "check", "kvasir", "--sheet", str(sheet)]) == 1
    said = capsys.readouterr().out
    assert "DAMAGED   4 files:" in said
    assert [sum(f"p00{n}" in line for line in said.splitlines()) for n in range(6)] == [0, 1, 1, 1, 1, 0]
    assert f"pictures  {sheet}" in said
    with Image.open(sheet) as drawn:
        assert drawn.size == (2 * (SIDE + 10), SIDE + 42)


def test_a_set_of_which_nothing_is_left_names_its_files(root, capsys):
    draw_polyps(root, [0.5, 0.5])
    shutil.rmtree(root / "Kvasir-SEG" / "images")
    trees.grey(root / PLACE.format("images", "q"), np.zeros((45, 60)))
    assert main(["data", "check", "kvasir", "--sheet", str(root / "sheet.png")]) == 1
    said = capsys.readouterr().err
    assert said.count("has no image of its name") == 2
    assert "kvasir has no image with a label map below" in said


def test_what_was_made_of_odd_files_is_a_remark(root):
    tree = trees.draw_suim(root)
    (path,) = tree.maps["TEST/d_r_1_"]
    with Image.open(path) as image:
        longer = image.crop((0, 0, image.width, image.height + 4))
    longer.save(path)
    report = check(*open_set("suim"))
    assert "remark    1 masks are larger than their image and cropped to it: TEST/d_r_1_." in str(report)


@pytest.mark.parametrize("hurt", [0, 3], ids=["all whole", "every third damaged"])
def test_a_sheet_of_many_images_is_full_and_no_larger(root, hurt):
    draw_polyps(root, [0.5] * 3 * SHEET[0] * SHEET[1], width=30)
    images = open_images("kvasir", size=32)
    for image_id in images.ids[::hurt] if hurt else ():
        images.files[image_id].image.write_bytes(b"")
    report = check(images, sheet=root / "sheet.png")
    assert ("... and 14 more: p030, p033," in str(report)) == bool(hurt)
    with Image.open(report.sheet) as sheet:
        assert sheet.size == (SHEET[0] * (SIDE + 10), SHEET[1] * (SIDE + 42))


def test_the_sheet_shows_the_classes_in_their_colours(root):
    """Half of what is seen is the class's colour, half the picture; what is of no class is a little darker."""
    draw_polyps(root, [0, 0.5], width=220)
    trees.grey(root / PLACE.format("images", "p000"), np.full((45, 220), 200))
    with Image.open(check(open_images("kvasir", size=32), sheet=root / "sheet.png").sheet) as sheet:
        pixels = np.asarray(sheet, dtype=int)
    row = SIDE // 2
    assert np.abs(pixels[row, 5 + SIDE // 4] - 160).max() < 5
    polyp, beside = pixels[row, SIDE + 15 + SIDE // 4], pixels[row, SIDE + 15 + 3 * SIDE // 4]
    assert np.abs(polyp - np.add(class_colour(POLYP), (255, 0, 0)) / 2).max() < 12
    assert beside.max() < 12
    assert (pixels[0] == 255).all()


def test_neighbouring_classes_have_colours_that_differ():
    for number in range(1, 60):
        near, next_one = class_colour(number), class_colour(number + 1)
        assert sum(abs(a - b) for a, b in zip(near, next_one)) > 100


@pytest.mark.parametrize(
    ("name", "images", "said"),
    [
        ("fss1000", 9998, "fss_1000: 9998 images, 9998 published."),
        ("kvasir", 5, DataError("5 images are here, 1000 are published: the data set is not complete. Unpack")),
        # Frames with a label map of another size are left out of GTA5.
        ("gta5", 24_906, "gta5: 24906 images, 24966 published."),
        ("gta5", 24_905, DataError("24905 images are here, 24966 are published")),
        ("synthia", 9_401, DataError("9401 images are here")),
        ("deepglobe", 7, "deepglobe: 7 images; how many there should be is not published."),
    ],
)
def test_whoever_should_have_everything_is_told_when_it_is_not_there(name, images, said):
    if isinstance(said, str):
        assert hold_against_published(name, images) == said
        return
    with pytest.raises(DataError, match=str(said)):
        hold_against_published(name, images)

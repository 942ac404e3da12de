"""The reader of SUIM: colours to classes, pairs of files, and errors a person can act on. 15 s."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fsslib.data import open_task
from fsslib.data.decode import DataError, colour_codes
from fsslib.data.names import class_id, named
from fsslib.data.suim import CLASS_NAMES, GLOBAL_IDS, Suim

COLOURS = np.array(
    [
        (0, 0, 0),
        (0, 0, 255),
        (0, 255, 0),
        (0, 255, 255),
        (255, 0, 0),
        (255, 0, 255),
        (255, 255, 0),
        (255, 255, 255),
    ],
    dtype=np.uint8,
)
"""As published: water, divers, plants, wrecks, robots, reefs, fish, sea floor."""

SIZE = (48, 64)


def scene(classes=(1, 7), size=SIZE) -> np.ndarray:
    """A map of class numbers: water above, below it the classes side by side."""
    numbers = np.zeros(size, dtype=np.uint8)
    numbers[size[0] // 2 :] = np.array(classes)[np.arange(size[1]) * len(classes) // size[1]]
    return numbers


def a_little_off(colours: np.ndarray) -> np.ndarray:
    """Colours as a lossy copy has them, each channel on its side of 128; far off in a sixteenth of all columns."""
    rng = np.random.default_rng(0)
    off = rng.integers(0, np.where(np.arange(colours.shape[1]) % 16, 32, 128)[:, None], colours.shape)
    return np.where(colours >= 128, 255 - off, off)


def add_scene(
    root: Path,
    name: str,
    classes=(1, 7),
    *,
    part: str = "TEST",
    mask_size: tuple[int, int] = SIZE,
    suffixes: tuple[str, str] = (".jpg", ".bmp"),
    mode: str = "RGB",
    exact: bool = True,
) -> np.ndarray:
    """Write a photograph, blue above and grey below, with its mask of `mask_size`; return the map of class numbers."""
    folder = root / "SUIM" / part
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    photograph = np.zeros((*SIZE, 3), dtype=np.uint8)
    photograph[...] = (10, 60, 120)
    photograph[SIZE[0] // 2 :] = 110
    Image.fromarray(photograph).save(folder / "images" / f"{name}{suffixes[0]}", format="JPEG", quality=95)
    numbers = scene(classes, mask_size)
    colours = COLOURS[numbers] if exact else a_little_off(COLOURS[numbers]).astype(np.uint8)
    kind = "BMP" if suffixes[1].lower() == ".bmp" else "PNG"
    Image.fromarray(colours).convert(mode).save(folder / "masks" / f"{name}{suffixes[1]}", format=kind)
    return numbers


def file(root: Path, kind: str, name: str) -> Path:
    return root / "SUIM" / "TEST" / kind / name


@pytest.fixture
def tree(tmp_path) -> Path:
    """Two scenes of either part, which a test may damage."""
    for part in ("train_val", "TEST"):
        add_scene(tmp_path, "d_r_1_", (1, 7), part=part)
        add_scene(tmp_path, "f_r_2_", (6, 5, 2), part=part)
    return tmp_path


# Reading


def test_both_parts_are_read_with_classes_of_all_data_sets(tree):
    data = Suim(tree, size=32)
    assert data.ids == ("TEST/d_r_1_", "TEST/f_r_2_", "train_val/d_r_1_", "train_val/f_r_2_")
    assert (data.name, data.domain) == ("suim", "suim")
    assert list(data.class_names.values()) == [
        *("person", "aquatic plant", "wreck", "robot", "reef", "fish", "sea floor"),
    ]
    assert data.images_by_class[class_id("fish")] == ("TEST/f_r_2_", "train_val/f_r_2_")
    assert data.images_by_class[class_id("robot")] == ()
    assert data.contents["TEST/d_r_1_"].held == {class_id("person"), class_id("sea floor")}


def test_divers_are_people_and_every_class_has_an_id():
    assert GLOBAL_IDS[1] == class_id("person") == class_id("diver") == 15
    assert len(set(GLOBAL_IDS)) == 8
    assert GLOBAL_IDS[0] == 0
    assert list(named(GLOBAL_IDS[2:]).values()) == [CLASS_NAMES[n] for n in range(2, 8)]


@pytest.mark.parametrize("exact", [True, False])
def test_all_eight_colours_are_told_apart(tmp_path, exact):
    numbers = np.arange(8, dtype=np.uint8).repeat(50).reshape(8, 50)
    colours = COLOURS[numbers] if exact else a_little_off(COLOURS[numbers]).astype(np.uint8)
    Image.fromarray(colours).save(tmp_path / "mask.bmp")
    assert np.array_equal(colour_codes(tmp_path / "mask.bmp").numpy(), numbers)


@pytest.mark.parametrize("suffixes", [(".jpg", ".bmp"), (".jpg", ".png"), (".JPG", ".BMP"), (".Jpg", ".PNG")])
@pytest.mark.parametrize("exact", [True, False])
def test_masks_of_either_format(tmp_path, suffixes, exact):
    numbers = add_scene(tmp_path, "n_l_3_", (1, 2, 3, 4, 5, 6, 7), suffixes=suffixes, exact=exact)
    image, labels = Suim(tmp_path)._load("TEST/n_l_3_")
    assert np.array_equal(labels.numpy(), np.array(GLOBAL_IDS)[numbers])
    # The photograph is blue where there is water, which shows that the two lie the same way up.
    assert image[0][labels == 0].max() < 40 < 80 < image[0][labels != 0].min()


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_masks_that_another_program_saved(tmp_path, mode):
    numbers = add_scene(tmp_path, "n_l_3_", (4, 5), suffixes=(".jpg", ".png"), mode=mode)
    assert np.array_equal(Suim(tmp_path)._load("TEST/n_l_3_")[1].numpy(), np.array(GLOBAL_IDS)[numbers])


def test_a_mask_that_is_a_little_larger_is_cropped_to_the_image(tmp_path):
    numbers = add_scene(tmp_path, "w_r_4_", (3, 7), mask_size=(51, 68))
    data = Suim(tmp_path)
    image, labels = data._load("TEST/w_r_4_")
    assert image.shape[1:] == labels.shape == SIZE
    assert np.array_equal(labels.numpy(), np.array(GLOBAL_IDS)[numbers[:48, :64]])
    data.check()


def test_a_mask_that_is_longer_is_cropped_at_the_bottom_and_counted(tree):
    numbers = add_scene(tree, "f_r_1058_", (3, 7), mask_size=(55, 64))  # 15 % longer, as released
    data = Suim(tree)
    assert np.array_equal(data.original("TEST/f_r_1058_")[1].numpy(), np.array(GLOBAL_IDS)[numbers[:48]])
    assert data.notes == ("1 masks are larger than their image and cropped to it: TEST/f_r_1058_.",)
    assert data.contents["TEST/f_r_1058_"].held == {class_id("wreck"), class_id("sea floor")}
    file(tree, "masks", "f_r_1058_.bmp").unlink()
    assert Suim(tree).notes == ()


def test_what_else_lies_about_is_left_alone(tree):
    for kind in ("images", "masks"):
        file(tree, kind, "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
        file(tree, kind, "._d_r_1_.bmp").write_bytes(b"\x00\x05\x16\x07")
    shutil.copy(file(tree, "images", "d_r_1_.jpg"), file(tree, "images", "no_mask.jpg"))
    divers = file(tree, "masks", "HD")
    divers.mkdir()
    Image.fromarray(scene((1,)) * 255).save(divers / "d_r_1_.bmp")
    Suim(tree, size=32).check()
    assert len(Suim(tree, size=32)) == 4


def test_the_published_mask_goes_before_a_copy(tree):
    shutil.copy(file(tree, "masks", "f_r_2_.bmp"), file(tree, "masks", "copy.bmp"))
    with Image.open(file(tree, "masks", "copy.bmp")) as other:
        other.save(file(tree, "masks", "d_r_1_.png"))
    file(tree, "masks", "copy.bmp").unlink()
    assert Suim(tree).contents["TEST/d_r_1_"].held == {class_id("person"), class_id("sea floor")}


def test_one_part_is_enough(tree):
    shutil.rmtree(tree / "SUIM" / "train_val")
    assert Suim(tree).ids == ("TEST/d_r_1_", "TEST/f_r_2_")


def test_episodes_are_valid_and_hold_the_class(tree):
    data = Suim(tree, size=40, keep_originals=True)
    classes = data.usable_classes(minimum_images=2)
    assert {CLASS_NAMES[GLOBAL_IDS.index(c)] for c in classes} == {
        "diver",
        "aquatic plant",
        "reef",
        "fish",
        "sea floor",
    }
    episode = data.episode(data.sample(classes, 10)).check_values()
    assert episode.query_images.shape == (10, 3, 40, 40)
    assert all(original.shape == SIZE for original in episode.query_originals)


def test_water_alone_holds_no_class(tmp_path):
    add_scene(tmp_path, "n_l_3_", (0,))
    assert Suim(tmp_path).contents["TEST/n_l_3_"].held == frozenset()


# Errors


def test_without_data_the_message_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("FSSLIB_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"no folder .*SUIM.train_val or .*SUIM.TEST\.\nTo get it, .*xahidbuffon/SUIM"):
        Suim()
    (tmp_path / "SUIM" / "images").mkdir(parents=True)
    with pytest.raises(DataError, match="one folder of masks for each class is a merged copy"):
        Suim()


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_a_folder_that_was_never_unpacked(tree, kind):
    shutil.rmtree(tree / "SUIM" / "train_val" / kind)
    with pytest.raises(DataError, match=rf"no folder .*train_val.{kind}\.\nSUIM is not complete\. Unpack"):
        Suim(tree)


def test_masks_without_their_images(tree):
    file(tree, "images", "d_r_1_.jpg").unlink()
    with pytest.raises(DataError, match=r"TEST.masks.d_r_1_\.bmp has no image of its name below .*TEST\. "):
        Suim(tree)
    file(tree, "images", "f_r_2_.jpg").unlink()
    with pytest.raises(DataError, match=r"TEST\. 1 more like it\. Unpack"):
        Suim(tree)


def test_a_part_without_masks(tree):
    for path in file(tree, "masks", "").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"TEST holds no images with masks"):
        Suim(tree)


@pytest.mark.parametrize("mask_size", [(47, 64), (48, 63), (96, 128), (48, 71), (64, 48), (58, 64), (55, 74), (55, 63)])
def test_a_mask_of_another_size_than_its_image(tree, mask_size):
    add_scene(tree, "d_r_1_", mask_size=mask_size)
    expected = rf"d_r_1_\.bmp: the image is 64 x 48 pixels, its label map {mask_size[1]} x {mask_size[0]}"
    with pytest.raises(DataError, match=expected):
        Suim(tree)


def test_class_numbers_in_place_of_colours(tree):
    Image.fromarray(scene((1, 7))).save(file(tree, "masks", "d_r_1_.bmp"))
    with pytest.raises(DataError, match=r"d_r_1_\.bmp holds class numbers .* largest value is 7\. .*restore"):
        Suim(tree)


@pytest.mark.parametrize(("kind", "name"), [("images", "d_r_1_.jpg"), ("masks", "d_r_1_.bmp")])
def test_truncated_files_are_named(tree, kind, name):
    path = file(tree, kind, name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=rf"{name} cannot be read"):
        Suim(tree).check()


# The real images


@pytest.fixture(scope="module")
def real() -> Suim:
    if not os.environ.get("FSSLIB_DATA"):
        pytest.skip("FSSLIB_DATA is not set: no real images to read")
    data = Suim(size=128)
    if len(data) != 8:
        pytest.skip(f"FSSLIB_DATA holds {len(data)} images of SUIM, not the 8 these counts are of")
    return data


@pytest.mark.realdata
def test_the_images_are_all_there(real):
    real.check()
    found = real.contents.values()
    counts = [(sum(c in one.held for one in found), len(real.images_by_class[c])) for c in GLOBAL_IDS[1:]]
    # With a pixel of the class, and with enough of it: people, plants, wrecks, robots, reefs, fish, sea floor.
    assert counts == [(6, 5), (0, 0), (2, 2), (2, 2), (7, 7), (4, 4), (0, 0)]


@pytest.mark.realdata
def test_labels_lie_on_what_the_image_shows(real):
    # The sea floor and what lives on it are below the open water, in all images together.
    rows = {c: [] for c in (0, class_id("reef"))}
    for image_id in real.ids:
        labels = real._load(image_id)[1]
        for c, found in rows.items():
            found.append((labels == c).nonzero()[:, 0].float() / len(labels))
    water, reef = (torch.cat(found).mean() for found in rows.values())
    assert water < 0.45 < 0.6 < reef


@pytest.mark.realdata
@pytest.mark.parametrize(("fold", "person"), [(2, True), (3, False)])
def test_photographs_are_learnt_and_the_sea_is_asked(real, fold, person):
    pytest.importorskip("pycocotools")
    task = open_task("photos", fold=fold, targets=("suim",), size=64)
    asked = task.classes_in("suim")
    assert (class_id("person") in asked) == person
    assert (class_id("person") in task.train_classes) != person
    assert {class_id("reef"), class_id("fish")} <= set(asked)
    assert not set(asked) & set(task.train_classes)
    next(task.exams(12, seed="x")["suim"].batches(12)).check_values()


@pytest.mark.realdata
def test_a_sea_with_nothing_to_ask_for_is_refused(real, monkeypatch):
    pytest.importorskip("pycocotools")
    monkeypatch.setattr("fsslib.data.suim.Suim", lambda size: real.restricted(["TEST/n_l_52_", "TEST/n_l_12_"]))
    with pytest.raises(
        DataError, match=r"No class of SUIM .* these 2 show person 2, .*wreck 1, .*leave the target out"
    ):
        open_task("photos", fold=3, targets=("suim",), size=64)

"""Your own images: masks that are found by their names, and what is said of folders that cannot be used. About 3 s."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from fsslib.data.decode import DataError
from fsslib.data.folder import find_pictures, open_folder, own_class_id

HEIGHT, WIDTH = 40, 60
OBJECT = np.zeros((HEIGHT, WIDTH), bool)
OBJECT[5:20, 8:40] = True
HALVES = (OBJECT & (np.arange(WIDTH) < 20), OBJECT & (np.arange(WIDTH) >= 20))
NOISE = Image.effect_noise((WIDTH, HEIGHT), 60)


def save(drawn, path):
    """A picture; an array is saved as its image, truth values in white on black."""
    path.parent.mkdir(exist_ok=True, parents=True)
    if not isinstance(drawn, Image.Image):
        drawn = Image.fromarray((drawn * (255 if drawn.dtype == bool else 1)).astype(np.uint8))
    drawn.save(path)
    return path


def cut_short(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])


@pytest.fixture
def folder(tmp_path):
    """Four pictures, two masks beside them, and what lies about in folders."""
    photos = tmp_path / "photos"
    for name in ("a.JPG", "B.png", "c.jpeg", "d.webp"):
        save(Image.radial_gradient("L").resize((WIDTH, HEIGHT)).convert("RGB"), photos / name)
    for name in ("a_mask.png", "b_MASK.PNG"):
        save(OBJECT, photos / name)
    for clutter in ("Thumbs.db", "desktop.ini", ".DS_Store", "._a.JPG", ".hidden.png"):
        (photos / clutter).write_bytes(b"clutter")
    (photos / "inside").mkdir()
    return photos


def test_a_folder_with_masks_is_a_data_set(folder):
    images = open_folder(folder, class_name="dog", size=32)
    assert images.ids == ("B", "a")
    assert list(images.unlabelled) == ["c", "d"]
    assert [(image.name, mask.name) for image, mask in images.pairs] == [
        ("B.png", "b_MASK.PNG"),
        ("a.JPG", "a_mask.png"),
    ]
    assert images.notes == (
        "The object is what is not black in b_MASK.PNG (20.0% of the picture), a_mask.png (20.0% of the picture).",
    )
    (dog,) = images.class_names
    assert dog == own_class_id("dog") < 255
    episode = images.episode(images.sample([dog], 3))
    assert episode.support_masks.sum() > 0
    expected = torch.nn.functional.interpolate(torch.tensor(OBJECT)[None, None].float(), (32, 32), mode="nearest-exact")
    assert torch.equal(episode.query_labels[0], expected[0, 0].long())


def test_a_class_that_no_data_set_has_gets_an_id_of_its_own(folder):
    images = open_folder(folder, class_name="my cup", size=32)
    (number,) = images.class_names
    assert number == own_class_id("my cup") != own_class_id("my pen")
    assert number > 1000
    assert images.episode(images.sample([number], 1)).query_class_map.unique().tolist() == [0, number]


def test_void_and_the_class_that_is_chosen_reach_the_episodes(folder):
    labels = np.where(HALVES[0], 255, HALVES[1] * 2)
    labels[30:, 50:] = 1
    for name in ("a_mask.png", "b_MASK.PNG"):
        save(labels, folder / name)
    images = open_folder(folder, class_name="dog", size=32, choose=2)
    assert np.array_equal(images.original("a")[1].numpy() == 255, HALVES[0])
    episode = images.episode(images.sample(list(images.class_names), 2))
    assert set(episode.support_masks.unique().tolist()) == {0, 1, 255}
    assert (episode.query_class_map == own_class_id("dog")).float().mean() == pytest.approx(HALVES[1].mean(), abs=0.02)


def test_masks_in_a_folder_of_their_own(folder):
    drawn = folder.parent / "drawn"
    for name, mask in (("C.bmp", OBJECT), ("d_mask.png", OBJECT & False), ("elsewhere.png", OBJECT)):
        save(mask, drawn / name)
    (drawn / "IMG.heic").write_bytes(b"of a telephone")
    images = open_folder(folder, drawn, size=32)
    assert images.ids == ("B", "a", "c", "d")
    assert [image.name for image, _ in images.pairs] == ["B.png", "a.JPG", "c.jpeg"]
    text = "\n".join(images.notes)
    assert "d_mask.png is empty: d.webp is taken to show no object." in text
    assert "Masks without a picture of their name, left alone: elsewhere.png." in text
    assert "IMG.heic" in text
    assert "humbs" not in text


BROKEN = {
    "two of a name": (lambda f: save(NOISE, f / "A.png"), r"A\.png and a\.JPG are two pictures of one name"),
    "two masks": (lambda f: save(NOISE, f / "a_mask.jpg"), r"two masks of one name"),
    "another size": (
        lambda f: save(OBJECT[:, :-1], f / "a_mask.png"),
        r"a_mask\.png is 59 x 40 pixels, its picture a\.JPG 60 x 40",
    ),
    "a photograph": (lambda f: save(NOISE, f / "a_mask.png"), r"a_mask\.png looks like a photograph"),
    "mask cut short": (
        lambda f: cut_short(save(NOISE, f / "a_mask.png")),
        r"a_mask\.png cannot be read .* damaged or cut short",
    ),
    "no image": (lambda f: (f / "a_mask.png").write_bytes(b"<html>not found</html>"), r"a_mask\.png is not a picture"),
    "picture empty": (lambda f: (f / "a.JPG").write_bytes(b""), r"a\.JPG is not a picture"),
    "no masks": (
        lambda f: [path.unlink() for path in f.glob("*_[mM]*")],
        r"None of the 4 pictures .* has a mask.* save it beside it as B_mask\.png",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_be_used_is_said_in_words(folder, case):
    spoil, said = BROKEN[case]
    spoil(folder)
    with pytest.raises(DataError, match=f"(?s){said}"):
        open_folder(folder, size=32)


def test_a_folder_that_is_none_is_said_in_words(folder):
    (folder / "inside" / "a.heic").write_bytes(b"")
    for path, said in (
        (folder / "nowhere", "does not exist"),
        (folder / "a.JPG", "is a file; give the folder it lies in"),
        (folder / "inside", r"holds no pictures .* such as a\.heic.* sub-folders are not searched"),
    ):
        with pytest.raises(DataError, match=said):
            open_folder(path)


def test_damage_in_a_picture_is_found_when_it_is_used(folder):
    cut_short(folder / "a.JPG")
    images = open_folder(folder, size=32)
    with pytest.raises(DataError, match=r"a\.JPG cannot be read"):
        images.original("a")


# Where masks lie: what is in the folder, as one name: content; then the folders that are given, and what is remarked

PHOTO = Image.radial_gradient("L").resize((WIDTH, HEIGHT)).convert("RGB")
FLAT = Image.composite(*(Image.new("RGB", (WIDTH, HEIGHT), c) for c in ("red", "green")), Image.fromarray(OBJECT))
FIRST, SECOND = HALVES


def in_coco(*names, **more):
    box = [8, 5, 40, 5, 40, 20, 8, 20]
    images = [{"id": n, "file_name": f"train/{name}", "height": HEIGHT, "width": WIDTH} for n, name in enumerate(names)]
    entries = [{"id": n, "image_id": n, "category_id": 0, "segmentation": [box]} for n in range(len(names))]
    images += [{"id": 9, "file_name": other} for other in more.values()]
    return json.dumps({"images": images, "annotations": entries, "categories": [{"id": 0, "name": "box"}]})


OTHER_JSON = {"IMG.json": '{"title": "x"}', "settings.json": "{// broken"}
LAYOUTS = {
    "numbered masks": ({"IMG_mask_1.png": FIRST, "IMG_mask_2.png": SECOND}, "", None, "2 masks of IMG.jpg are joined"),
    "of one name": ({"IMG.png": OBJECT}, "", None, None),
    "of one name, neither lossy": ({"IMG.jpg": None, "IMG.bmp": PHOTO, "IMG.png": OBJECT}, "", None, None),
    "of one name, both flat": ({"IMG.jpg": None, "IMG.bmp": FLAT, "IMG.png": OBJECT}, "", None, None),
    "an array": ({"IMG.npy": OBJECT}, "", None, None),
    "a COCO JSON for all": ({"annotations.json": in_coco("IMG.jpg", "else.jpg")}, "", None, None),
    "a COCO JSON of its name": ({"IMG.json": in_coco("IMG.jpg")}, "", None, None),
    "a COCO JSON with two of its name": (
        {"IMG.jpg": None, "train/IMG.jpg": PHOTO, "train/a.json": in_coco("IMG.jpg", other="val/IMG.jpg")},
        "train",
        None,
        None,
    ),
    "JSON of other kinds": (
        {"IMG_mask.png": OBJECT, **OTHER_JSON},
        "",
        None,
        "JSON without outlines by LabelMe or COCO, left alone: IMG.json, settings.json",
    ),
    "a folder of masks each": (
        {"p/IMG.jpg": PHOTO, "p/b.jpg": PHOTO, "m/img/0.png": FIRST, "m/img/1.png": SECOND},
        "p",
        "m",
        "2 masks of IMG.jpg are joined: 0.png, 1.png",
    ),
    "one picture and its masks": (
        {"p/IMG.jpg": PHOTO, "m/0.png": FIRST, "m/1.png": SECOND},
        "p",
        "m",
        "2 masks of IMG.jpg are joined",
    ),
    "images and masks": ({"IMG.jpg": None, "images/IMG.jpg": PHOTO, "masks/IMG.png": OBJECT}, "", None, None),
    "DSB 2018": (
        {
            "IMG.jpg": None,
            "x/images/IMG.png": PHOTO,
            "y/images/b.png": PHOTO,
            "x/masks/0f.png": FIRST,
            "x/masks/1f.png": SECOND,
        },
        "",
        None,
        "2 masks of IMG.png are joined",
    ),
}
"""Each has a photograph IMG.jpg as well, unless that is None."""


def lay(root, files):
    for name, content in ({"IMG.jpg": PHOTO} | files).items():
        if isinstance(content, str):
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).write_text(content)
        elif name.endswith(".npy"):
            np.save(root / name, content)
        elif content is not None:
            save(content, root / name)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_masks_are_found_as_people_lay_them(tmp_path, layout):
    files, images, masks, remark = LAYOUTS[layout]
    lay(tmp_path, files)
    found = open_folder(tmp_path / images, masks and tmp_path / masks, size=32)
    assert found.ids == ("IMG",)
    assert np.array_equal(found.original("IMG")[1].numpy() > 0, OBJECT)
    assert set(found.unlabelled) <= {"b"}
    assert [remark in note for note in found.notes[1:]] == [True] if remark else len(found.notes) == 1


@pytest.mark.parametrize(
    "files",
    [
        {"001.bmp": PHOTO, "001.png": NOISE},
        {"001.bmp": OBJECT, "001.png": ~OBJECT},
        {"001.tif": Image.fromarray(~OBJECT), "001.png": FIRST * 1 + SECOND * 2},
        {"001.tif": Image.fromarray(~OBJECT), "001.jpg": FIRST},
    ],
    ids=["two photographs", "two masks", "a scan in black and white", "a scan and a JPEG"],
)
def test_two_pictures_of_one_name_are_told_apart_or_refused(tmp_path, files):
    lay(tmp_path, files)
    with pytest.raises(DataError, match=r"neither is plainly a mask .* a mask is named 001_mask\.png"):
        find_pictures(tmp_path)


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize(
    "name",
    ["a-mask", "a.mask", "a_masks", "a_cp_masks", "a_seg", "mask_a", "a_labels", "a_gt", "A_MASK_2", "a_mask(3)"],
)
def test_masks_by_the_names_that_tools_give(tmp_path, name, beside):
    for one in "ab":
        save(PHOTO, tmp_path / f"{one}.jpg")
    path = save(OBJECT, (tmp_path if beside else tmp_path / "drawn") / f"{name}.png")
    np.save(tmp_path / "b_seg.npy", {"masks": OBJECT})
    found = find_pictures(tmp_path, None if beside else tmp_path / "drawn")
    assert found.masks == {"a": (path,)}
    assert list(found.pictures) == ["a", "b"]


@pytest.mark.parametrize(
    ("picture", "mask", "masks"),
    [
        ("dust_mask_1.jpg", None, []),
        ("Mu\u0308ller.jpg", "M\u00fcller_mask.png", ["Mu\u0308ller"]),
        ("Cup.JPG", "cup_MASK.png", ["Cup"]),
    ],
    ids=["a number is no mask where its picture is not", "how an accent is written", "capitals"],
)
def test_what_does_not_part_a_mask_from_its_picture(tmp_path, picture, mask, masks):
    save(PHOTO, tmp_path / picture)
    if mask:
        save(OBJECT, tmp_path / mask)
    found = find_pictures(tmp_path)
    assert [path.name for path in found.pictures.values()] == [picture]
    assert list(found.masks) == masks
    assert found.remarks == ()

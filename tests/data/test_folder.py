"""Your own images: masks of every kind, turned pictures, and what is said of those that cannot be used. About 3 s."""

import json

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from fsslib.data.folder import find_pictures, open_folder, own_class_id, read_drawn_mask, read_picture
from fsslib.data.images import DataError

HEIGHT, WIDTH = 40, 60
OBJECT = np.zeros((HEIGHT, WIDTH), bool)
OBJECT[5:20, 8:40] = True
RULES = {
    "black": "what is not black",
    "colours": "what is not black, all colours as one,",
    "opaque": "what is not transparent",
    "half": "what is at least half as bright as the brightest pixel",
}


def picture(height=HEIGHT, width=WIDTH) -> Image.Image:
    """Every pixel in a colour of its own, so that a turn shows."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([4 * x, 6 * y, 0 * x + 90], -1).astype(np.uint8))


def save(image: Image.Image, path, orientation: int | None = None, **options):
    if orientation:
        exif = Image.Exif()
        exif[0x0112] = orientation
        options["exif"] = exif
    path.parent.mkdir(exist_ok=True, parents=True)
    image.save(path, **options)
    return path


def grey(values, dtype=np.uint8) -> Image.Image:
    return Image.fromarray(np.asarray(values).astype(dtype))


def palette(colours: list[tuple[int, int, int]]) -> Image.Image:
    image = grey(OBJECT * 1 + (OBJECT & (np.arange(WIDTH) > 30)) * (len(colours) - 2))
    image.putpalette([value for colour in colours for value in colour])
    return image


def rgba(colour_of_object, alpha_elsewhere=0, colour_elsewhere=(9, 9, 9)) -> Image.Image:
    pixels = np.empty((HEIGHT, WIDTH, 4), np.uint8)
    pixels[:] = (*colour_elsewhere, alpha_elsewhere)
    pixels[OBJECT] = (*colour_of_object, 255)
    return Image.fromarray(pixels)


MASKS = {
    "0 and 255": (grey(OBJECT * 255), "png", "black"),
    "0 and 1": (grey(OBJECT), "png", "black"),
    "one bit": (Image.fromarray(OBJECT), "png", "black"),
    "16 bits": (grey(OBJECT * 65535, np.uint16), "png", "black"),
    "16 bits, a label map": (grey(OBJECT * 3, np.uint16), "tif", "black"),
    "fractions": (grey(OBJECT * 0.7, np.float32), "tif", "black"),
    "a bitmap": (grey(OBJECT * 255), "BMP", "black"),
    "a palette in dark red": (palette([(0, 0, 0), (128, 0, 0)]), "png", "black"),
    "a palette of two classes, one dark": (palette([(0, 0, 0), (224, 220, 190), (64, 0, 0)]), "png", "colours"),
    "a painting in blue": (rgba((0, 0, 200), 255, (0, 0, 0)).convert("RGB"), "png", "black"),
    "opaque with an alpha channel": (rgba((255, 255, 255), 255, (0, 0, 0)), "png", "black"),
    "drawn in black on a transparent layer": (rgba((0, 0, 0)), "png", "opaque"),
    "cut out": (Image.merge("RGBA", (*picture().split(), grey(OBJECT * 255))), "png", "opaque"),
    "JPEG": (grey(OBJECT * 255), "jpg", "half"),
    "JPEG in colours": (rgba((255, 0, 0), 255, (0, 0, 0)).convert("RGB"), "jpeg", "half"),
    "a soft brush": (grey(OBJECT * 255).filter(ImageFilter.GaussianBlur(2)), "png", "half"),
    "CMYK": (grey(OBJECT * 255).convert("CMYK"), "jpg", "half"),
}


@pytest.mark.parametrize("kind", MASKS)
def test_a_mask_marks_what_its_drawer_sees(tmp_path, kind):
    image, suffix, rule = MASKS[kind]
    options = {"quality": 95, "subsampling": 0} if suffix.startswith("jp") else {}
    path = save(image, tmp_path / f"a_mask.{suffix}", **options)
    mask = read_drawn_mask(path, save(picture(), tmp_path / "a.png"))
    assert mask.rule == RULES[rule]
    assert ["count as one: #40" in remark for remark in mask.remarks] == [True] * (rule == "colours")
    wrong = (mask.labels.numpy() != OBJECT).mean()
    assert wrong == 0 if suffix not in ("jpg", "jpeg") and kind != "a soft brush" else wrong < 0.02


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("drawn_on", ["upright", "stored"])
def test_a_turned_picture_comes_upright_and_its_mask_with_it(tmp_path, orientation, drawn_on):
    stored = save(picture(), tmp_path / "a.png", orientation)
    swapped = orientation >= 5
    upright = read_picture(stored)
    assert upright.shape == (3, *((WIDTH, HEIGHT) if swapped else (HEIGHT, WIDTH)))
    # The red of a stored pixel is its column, the green its row: a mask of what is left of column 20 and above row 10.
    truth = ((upright[0] < 4 * 20) & (upright[1] < 6 * 10)).numpy()
    values = np.asarray(picture())
    lying = (values[..., 0] < 4 * 20) & (values[..., 1] < 6 * 10)
    mask = read_drawn_mask(save(grey(255 * (lying if drawn_on == "stored" else truth)), tmp_path / "m.png"), stored)
    if orientation == 1:
        assert mask.remarks == ()
    elif not swapped:
        assert "would fit either way" in mask.remarks[0]
        truth = lying if drawn_on == "stored" else truth
    elif drawn_on == "stored":
        assert "turned upright with it" in mask.remarks[0]
    assert np.array_equal(mask.labels.numpy(), truth)


def test_a_mask_that_says_itself_how_it_is_turned(tmp_path):
    image = save(picture(), tmp_path / "a.png", 6)
    mask = read_drawn_mask(save(grey(OBJECT * 255), tmp_path / "m.png", 6), image)
    assert np.array_equal(mask.labels.numpy(), np.rot90(OBJECT, -1))
    assert mask.remarks == ()


def test_a_mask_that_says_wrongly_how_it_is_turned(tmp_path):
    upright = np.rot90(OBJECT, -1)
    mask = read_drawn_mask(save(grey(upright * 255), tmp_path / "m.png", 6), save(picture(), tmp_path / "a.png", 6))
    assert np.array_equal(mask.labels.numpy(), upright)
    assert mask.remarks == ()


def test_a_picture_that_is_too_large_is_not_damaged(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DataError, match="is too large to be read"):
        read_picture(save(picture(), tmp_path / "a.png"))


@pytest.mark.parametrize(
    ("values", "remark"),
    [
        (np.zeros_like(OBJECT), "taken to show no object"),
        (np.ones_like(OBJECT), "leaves no background"),
        (~OBJECT, "invert the mask"),
    ],
)
def test_a_mask_that_may_be_a_slip_is_remarked_on(tmp_path, values, remark):
    mask = read_drawn_mask(save(grey(255 * values), tmp_path / "m.png"), save(picture(), tmp_path / "a.png"))
    assert np.array_equal(mask.labels.numpy(), values)
    assert [remark in line for line in mask.remarks] == [True]


PICTURES = {
    "grey": (grey(np.full((HEIGHT, WIDTH), 77)), "jpg", 77),
    "CMYK": (Image.new("CMYK", (WIDTH, HEIGHT), (0, 0, 0, 255 - 77)), "jpg", 77),
    "palette": (Image.new("RGB", (WIDTH, HEIGHT), (77, 77, 77)).quantize(4), "png", 77),
    "transparent": (Image.new("RGBA", (WIDTH, HEIGHT), (0, 0, 0, 0)), "png", 255),
    "16 bits": (grey(np.full((HEIGHT, WIDTH), 40000), np.uint16), "png", 40000 * 255 // 65535),
    "12 bits of 16": (grey(np.full((HEIGHT, WIDTH), 4000), np.uint16), "tif", 4000 * 255 // 4095),
    "WebP": (Image.new("RGB", (WIDTH, HEIGHT), (77, 77, 77)), "WEBP", 77),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_a_picture_of_any_kind_comes_in_rgb(tmp_path, kind):
    image, suffix, value = PICTURES[kind]
    found = read_picture(save(image, tmp_path / f"a.{suffix}"))
    assert found.shape == (3, HEIGHT, WIDTH)
    assert found.dtype == torch.uint8
    assert (found.int() - value).abs().max() <= 2


def test_a_turned_tiff_comes_upright_too(tmp_path):
    path = save(picture(), tmp_path / "a.tif", 6)
    assert torch.equal(read_picture(path), read_picture(save(picture(), tmp_path / "a.png", 6)))
    mask = read_drawn_mask(save(grey(np.rot90(OBJECT, -1) * 255), tmp_path / "m.png"), path)
    assert np.array_equal(mask.labels.numpy(), np.rot90(OBJECT, -1))


@pytest.fixture
def folder(tmp_path):
    """Four pictures, two masks beside them, and what lies about in folders."""
    photos = tmp_path / "photos"
    for name in ("a.JPG", "B.png", "c.jpeg", "d.webp"):
        save(picture(), photos / name)
    save(grey(OBJECT * 255), photos / "a_mask.png")
    save(grey(OBJECT * 255), photos / "b_MASK.PNG")
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
    images.check()
    (dog,) = images.class_names
    assert dog == own_class_id("dog") < 255
    episode = images.episode(images.sample([dog], 3))
    assert episode.check_values().support_masks.sum() > 0
    expected = torch.nn.functional.interpolate(torch.tensor(OBJECT)[None, None].float(), (32, 32), mode="nearest-exact")
    assert torch.equal(episode.query_labels[0], expected[0, 0].long())


def test_a_class_that_no_data_set_has_gets_an_id_of_its_own(folder):
    images = open_folder(folder, class_name="my cup", size=32)
    (number,) = images.class_names
    assert number == own_class_id("my cup") != own_class_id("my pen")
    assert number > 1000
    assert images.episode(images.sample([number], 1)).query_class_map.unique().tolist() == [0, number]


def test_masks_in_a_folder_of_their_own(folder):
    drawn = folder.parent / "drawn"
    save(grey(OBJECT * 255), drawn / "C.bmp")
    save(grey(0 * OBJECT), drawn / "d_mask.png")
    save(grey(OBJECT * 255), drawn / "elsewhere.png")
    (drawn / "IMG.heic").write_bytes(b"of a telephone")
    images = open_folder(folder, drawn, size=32)
    assert images.ids == ("B", "a", "c", "d")
    assert [image.name for image, _ in images.pairs] == ["B.png", "a.JPG", "c.jpeg"]
    text = "\n".join(images.notes)
    assert "d_mask.png is empty: d.webp is taken to show no object." in text
    assert "Masks without a picture of their name, left alone: elsewhere.png." in text
    assert "IMG.heic" in text
    assert "humbs" not in text


def noise() -> Image.Image:
    return Image.effect_noise((WIDTH, HEIGHT), 60)


def cut_short(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


BROKEN = {
    "two of a name": (lambda f: save(picture(), f / "A.png"), r"A\.png and a\.JPG are two pictures of one name"),
    "two masks": (lambda f: save(noise(), f / "a_mask.jpg"), r"two masks of one name"),
    "another size": (
        lambda f: save(grey(OBJECT[:, :-1] * 255), f / "a_mask.png"),
        r"a_mask\.png is 59 x 40 pixels, its picture a\.JPG 60 x 40",
    ),
    "a photograph": (lambda f: save(noise(), f / "a_mask.png"), r"a_mask\.png looks like a photograph"),
    "mask cut short": (
        lambda f: cut_short(save(noise(), f / "a_mask.png")),
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


def test_damage_in_a_picture_is_found_by_the_check(folder):
    data = (folder / "a.JPG").read_bytes()
    (folder / "a.JPG").write_bytes(data[: len(data) * 3 // 4])
    images = open_folder(folder, size=32)
    with pytest.raises(DataError, match=r"damaged files: 1\.\n.*a\.JPG cannot be read"):
        images.check()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.unlink(), "does not exist"),
        (lambda path: (path.unlink(), path.mkdir()), "is a folder, where a picture is wanted"),
        (lambda path: grey(np.zeros((4, 4)), np.float32).save(path, "TIFF"), "holds fractions"),
    ],
)
def test_a_picture_that_cannot_be_one_is_refused(folder, spoil, said):
    spoil(folder / "a.JPG")
    with pytest.raises(DataError, match=said):
        read_picture(folder / "a.JPG")


def test_capitals_do_not_part_a_mask_from_its_picture(folder):
    found = find_pictures(folder)
    assert set(found.pictures) == {"a", "B", "c", "d"}
    assert set(found.masks) == {"a", "B"}
    assert found.remarks == ()


def in_coco(*names):
    box = [8, 5, 40, 5, 40, 20, 8, 20]
    images = [{"id": n, "file_name": f"train/{name}", "height": HEIGHT, "width": WIDTH} for n, name in enumerate(names)]
    entries = [{"id": n, "image_id": n, "category_id": 0, "segmentation": [box]} for n in range(len(names))]
    return json.dumps({"images": images, "annotations": entries, "categories": [{"id": 0, "name": "box"}]})


HALVES = (OBJECT & (np.arange(WIDTH) < 20), OBJECT & (np.arange(WIDTH) >= 20))


TWICE = json.loads(in_coco("IMG.jpg"))
TWICE["images"] += [{"id": 1, "file_name": "val/IMG.jpg"}]


def white(mask) -> Image.Image:
    return grey(mask * 255)


def two_masks(root):
    for number, half in enumerate(HALVES, start=1):
        save(white(half), root / f"IMG_mask_{number}.png")


LAYOUTS = {
    "numbered masks": (
        lambda r: (save(picture(), r / "IMG.jpg"), two_masks(r)),
        "",
        None,
        "2 masks of IMG.jpg are joined",
    ),
    "picture and mask of one name": (
        lambda r: (save(picture(), r / "IMG.jpg"), save(white(OBJECT), r / "IMG.png")),
        "",
        None,
        None,
    ),
    "picture and mask of one name, neither lossy": (
        lambda r: (save(picture(), r / "IMG.bmp"), save(white(OBJECT), r / "IMG.png")),
        "",
        None,
        None,
    ),
    "picture and mask of one name, both flat": (
        lambda r: (
            save(
                Image.composite(*(Image.new("RGB", (WIDTH, HEIGHT), c) for c in ("red", "green")), white(OBJECT)),
                r / "IMG.bmp",
            ),
            save(white(OBJECT), r / "IMG.png"),
        ),
        "",
        None,
        None,
    ),
    "an array": (lambda r: (save(picture(), r / "IMG.jpg"), np.save(r / "IMG.npy", OBJECT)), "", None, None),
    "a COCO JSON for all": (
        lambda r: (save(picture(), r / "IMG.jpg"), (r / "annotations.json").write_text(in_coco("IMG.jpg", "else.jpg"))),
        "",
        None,
        None,
    ),
    "a COCO JSON with two of its name": (
        lambda r: (save(picture(), r / "train" / "IMG.jpg"), (r / "train" / "a.json").write_text(json.dumps(TWICE))),
        "train",
        None,
        None,
    ),
    "JSON of other kinds": (
        lambda r: (
            save(picture(), r / "IMG.jpg"),
            save(white(OBJECT), r / "IMG_mask.png"),
            (r / "IMG.json").write_text('{"title": "x"}'),
            (r / "settings.json").write_text("{// broken"),
        ),
        "",
        None,
        "JSON without outlines by LabelMe or COCO, left alone: IMG.json, settings.json",
    ),
    "a COCO JSON of its name": (
        lambda r: (save(picture(), r / "IMG.jpg"), (r / "IMG.json").write_text(in_coco("IMG.jpg"))),
        "",
        None,
        None,
    ),
    "a folder of masks each": (
        lambda r: (
            save(picture(), r / "p" / "IMG.jpg"),
            save(picture(), r / "p" / "b.jpg"),
            (r / "m").mkdir(),
            [save(white(half), r / "m" / "img" / f"{n}.png") for n, half in enumerate(HALVES)],
        ),
        "p",
        "m",
        "2 masks of IMG.jpg are joined: 0.png, 1.png",
    ),
    "one picture and its masks": (
        lambda r: (
            save(picture(), r / "p" / "IMG.jpg"),
            [save(white(half), r / "m" / f"{n}.png") for n, half in enumerate(HALVES)],
        ),
        "p",
        "m",
        "2 masks of IMG.jpg are joined",
    ),
    "images and masks": (
        lambda r: (save(picture(), r / "images" / "IMG.jpg"), save(white(OBJECT), r / "masks" / "IMG.png")),
        "",
        None,
        None,
    ),
    "DSB 2018": (
        lambda r: (
            (r / "x").mkdir(),
            (r / "y").mkdir(),
            save(picture(), r / "x" / "images" / "IMG.png"),
            save(picture(), r / "y" / "images" / "b.png"),
            [save(white(half), r / "x" / "masks" / f"{n}f.png") for n, half in enumerate(HALVES)],
        ),
        "",
        None,
        "2 masks of IMG.png are joined",
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_masks_are_found_as_people_lay_them(tmp_path, layout):
    write, images, masks, remark = LAYOUTS[layout]
    write(tmp_path)
    found = open_folder(tmp_path / images, masks and tmp_path / masks, size=32)
    assert found.ids == ("IMG",)
    assert np.array_equal(found.original("IMG")[1].numpy() > 0, OBJECT)
    assert set(found.unlabelled) <= {"b"}
    assert [remark in note for note in found.notes[1:]] == [True] if remark else len(found.notes) == 1


def test_two_pictures_of_one_name_are_told_apart_or_refused(tmp_path):
    save(picture(), tmp_path / "001.bmp")
    save(noise(), tmp_path / "001.png")
    with pytest.raises(DataError, match=r"neither is plainly a mask .* a mask is named 001_mask\.png"):
        find_pictures(tmp_path)
    save(white(OBJECT), tmp_path / "001.bmp")
    save(white(~OBJECT), tmp_path / "001.png")
    with pytest.raises(DataError, match="neither is plainly a mask"):
        find_pictures(tmp_path)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_scan_in_black_and_white_is_not_taken_for_its_mask(tmp_path, suffix):
    save(white(~OBJECT).convert("1"), tmp_path / "001.tif")
    save(grey(HALVES[0] * 255) if suffix == "jpg" else grey(HALVES[0] * 1 + HALVES[1] * 2), tmp_path / f"001.{suffix}")
    with pytest.raises(DataError, match="neither is plainly a mask"):
        find_pictures(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["a-mask", "a.mask", "a_masks", "a_cp_masks", "a_seg", "mask_a", "a_labels", "a_gt", "A_MASK_2", "a_mask(3)"],
)
@pytest.mark.parametrize("beside", [True, False])
def test_masks_by_the_names_that_tools_give(tmp_path, name, beside):
    for one in "ab":
        save(picture(), tmp_path / f"{one}.jpg")
    path = save(white(OBJECT), (tmp_path if beside else tmp_path / "drawn") / f"{name}.png")
    np.save(tmp_path / "b_seg.npy", {"masks": OBJECT})
    found = find_pictures(tmp_path, None if beside else tmp_path / "drawn")
    assert found.masks == {"a": (path,)}
    assert list(found.pictures) == ["a", "b"]


def test_a_number_is_no_mask_where_its_picture_is_not(tmp_path):
    save(picture(), tmp_path / "dust_mask_1.jpg")
    assert list(find_pictures(tmp_path).pictures) == ["dust_mask_1"]


def test_how_an_accent_is_written_does_not_part_a_mask_from_its_picture(tmp_path):
    save(picture(), tmp_path / "Mu\u0308ller.jpg")
    save(white(OBJECT), tmp_path / "M\u00fcller_mask.png")
    assert list(find_pictures(tmp_path).masks) == ["Mu\u0308ller"]


def test_void_and_the_class_that_is_chosen_reach_the_episodes(folder):
    for name in ("a_mask.png", "b_MASK.PNG"):
        labels = np.where(HALVES[0], 255, HALVES[1] * 2)
        labels[30:, 50:] = 1
        save(grey(labels), folder / name)
    images = open_folder(folder, class_name="dog", size=32, choose=2)
    assert np.array_equal(images.original("a")[1].numpy() == 255, HALVES[0])
    episode = images.episode(images.sample(list(images.class_names), 2)).check_values()
    assert set(episode.support_masks.unique().tolist()) == {0, 1, 255}
    assert (episode.query_class_map == own_class_id("dog")).float().mean() == pytest.approx(HALVES[1].mean(), abs=0.02)

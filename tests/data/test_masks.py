"""Readers of images with a mask each: how masks are read, FSS-1000, ISIC, chest X-rays, Kvasir, and damage. 8 s."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fsslib.data import FEWEST_IMAGES, fss1000, open_task
from fsslib.data.fss1000 import LEFT_OUT, PARTS, Fss1000, class_ids, class_list, class_name
from fsslib.data.images import DataError
from fsslib.data.joined import joined
from fsslib.data.masks import read_mask
from fsslib.data.medical import LESIONS, ChestXray, Isic, Kvasir
from fsslib.data.names import CLASS_NAMES, class_id
from fsslib.paths import shipped

SIZE = (56, 72)
BOX = (8, 16, 40, 64)
"""Top, left, bottom, right, along the blocks of a JPEG file, so that its mask comes back exactly."""


def box_mask(size=SIZE, box=BOX) -> np.ndarray:
    marked = np.zeros(size, dtype=bool)
    marked[box[0] : box[2], box[1] : box[3]] = True
    return marked


def add_image(path: Path, marked: np.ndarray, *, mode: str = "RGB") -> None:
    """A JPEG photograph that is bright where `marked`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.where(marked[..., None], (220, 180, 140), (60, 50, 40)).astype(np.uint8)
    Image.fromarray(picture).convert(mode).save(path, format="PNG" if path.suffix == ".png" else "JPEG", quality=95)


def add_mask(path: Path, marked: np.ndarray, *, mode: str = "L") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = "JPEG" if path.suffix.lower() == ".jpg" else "PNG"
    Image.fromarray((marked * 255).astype(np.uint8)).convert(mode).save(path, format=kind)


def add_pair(image: Path, mask: Path, *, box=BOX, size=SIZE, mode: str = "L", image_mode: str = "RGB") -> np.ndarray:
    marked = box_mask(size, box)
    add_image(image, marked, mode=image_mode)
    add_mask(mask, marked, mode=mode)
    return marked


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


# Masks


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "jpg", 255, 65535])
def test_masks_of_every_mode_are_white_on_black(tmp_path, mode):
    path = tmp_path / ("mask.jpg" if mode == "jpg" else "mask.png")
    if isinstance(mode, int):
        Image.fromarray((box_mask() * mode).astype(np.uint16)).save(path)
    else:
        add_mask(path, box_mask(), mode="RGB" if mode == "jpg" else mode)
    assert np.array_equal(read_mask(path).numpy(), box_mask())


def test_masks_with_soft_edges_are_split_as_released_loaders_do(tmp_path):
    # The elephants of FSS-1000: RGBA, with colours that differ a little at the edges.
    values = np.random.default_rng(0).integers(0, 256, (64, 64, 1)).repeat(4, axis=2)
    values[..., :3] += np.random.default_rng(1).integers(-9, 10, (64, 64, 3))
    values[:, :24], values[:, 32:] = 0, 255
    values[..., 3] = 255
    path = tmp_path / "mask.png"
    Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(path)
    with Image.open(path) as image:
        assert np.array_equal(read_mask(path).numpy(), np.array(image.convert("L")) >= 128)


# FSS-1000


@pytest.fixture
def fss(tmp_path) -> Path:
    """Three images of two training classes and of one test class, which a test may damage."""
    for name in ("taxi", "fountain", "bus"):
        for number in (1, 2, 10):
            add_pair(*fss_files(tmp_path, f"{name}/{number}"), mode="RGB")
    return tmp_path


def fss_files(root: Path, image_id: str) -> tuple[Path, Path]:
    return root / "FSS-1000" / f"{image_id}.jpg", root / "FSS-1000" / f"{image_id}.png"


def test_the_lists_of_classes_are_sorted_and_the_three_parts_make_a_thousand():
    assert {part: len(class_list(part)) for part in PARTS} == PARTS
    assert len(set(class_list())) == 1000
    for part in PARTS:
        names = (shipped("data") / "splits" / "fss_1000" / f"{part}.txt").read_text(encoding="utf-8").splitlines()
        assert names == sorted(names)
    assert {"bus", "abe's_flyingfish", "peregine_falcon"} <= set(class_list("test"))
    with pytest.raises(ValueError, match=r"parts trn, val, test; asked for 'train'"):
        class_list("train")


def test_lists_with_the_line_ends_of_the_release(tmp_path, monkeypatch):
    for part in PARTS:
        path = tmp_path / "splits" / "fss_1000" / f"{part}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\r\n".join(name.encode() for name in reversed(class_list(part))))
    monkeypatch.setattr(fss1000, "shipped", lambda kind: tmp_path)
    assert class_list.__wrapped__() == class_list()


def test_ids_are_shared_by_name_and_otherwise_fixed_above_a_thousand():
    ids = class_ids()
    assert len(set(ids.values())) == 1000
    own = [c for c in ids.values() if c not in CLASS_NAMES]
    assert 2001 <= min(own) < max(own) <= 3000
    assert (ids["ab_wheel"], ids["african_elephant"], ids["zucchini"]) == (2001, 2013, 3000)
    assert (ids["bus"], ids["fire_hydrant"], ids["diver"], ids["television"]) == (6, 23, 15, 20)
    assert (class_name("fire_hydrant"), class_name("diver"), class_name("ab_wheel")) == (
        *("fire hydrant", "person", "ab wheel"),
    )
    # Two classes of that name: the one at the computer is COCO's.
    assert ids["computer_mouse"] == class_id("mouse") != ids["mouse"]
    assert ids == {name: c for part in PARTS for name, c in class_ids(part).items()}


def test_folders_are_classes_and_parts_hold_their_own(fss):
    data = Fss1000(fss, size=32)
    assert data.ids[:3] == ("bus/1", "bus/10", "bus/2")
    assert (data.name, data.domain, len(data)) == ("fss_1000", "fss_1000", 9)
    ids = class_ids()
    assert data.class_names == {6: "bus", ids["fountain"]: "fountain", ids["taxi"]: "taxi"}
    assert data.images_by_class[ids["taxi"]] == ("taxi/1", "taxi/10", "taxi/2")
    assert Fss1000(fss, part="test").ids == ("bus/1", "bus/10", "bus/2")
    assert {i.split("/")[0] for i in Fss1000(fss, part="trn").ids} == {"taxi", "fountain"}
    assert data.files_of("taxi/2") == fss_files(fss, "taxi/2")
    with pytest.raises(DataError, match=r"no folder of a class of FSS-1000, part val\.\nTo get it"):
        Fss1000(fss, part="val")


def test_episodes_carry_ids_above_a_byte(fss):
    data = Fss1000(fss, size=36, keep_originals=True)
    taxi, bus = class_ids()["taxi"], 6
    episode = data.episode(data.sample([taxi, bus], 12, ways=2, presence_probability=0.6)).check_values()
    assert set(episode.class_ids.flatten().tolist()) == {taxi, bus}
    held = torch.where(episode.query_class_map == taxi, 1, 0).flatten(1).any(1)
    assert 0 < int(held.sum()) < 12
    assert torch.equal(held, (episode.query_labels.flatten(1) == 1 + (episode.class_ids[:, 1:] == taxi)).any(1))
    assert data.contents["taxi/1"].held == {taxi}


def test_a_class_of_two_sets_is_one_class(fss):
    add_pair(fss / "Kvasir-SEG" / "images" / "a.jpg", fss / "Kvasir-SEG" / "masks" / "a.jpg")
    both = joined((Fss1000(fss, part="test"), Kvasir(fss)), name="both", domain="photo")
    assert both.class_names == {6: "bus", class_id("polyp"): "polyp"}
    both = joined((Fss1000(fss), Kvasir(fss)), name="both", domain="photo")
    taxi = class_ids()["taxi"]
    assert both.original("fss_1000/taxi/1")[1].unique().tolist() == [0, taxi]


def test_strays_of_the_release_are_left_alone(fss):
    folder = fss / "FSS-1000" / "taxi"
    for stray in ("Thumbs.db", "._1.jpg", "1.jpeg", "notes.png", "desktop.jpg"):
        (folder / stray).write_bytes(b"\xd0\xcf\x11\xe0")
    add_pair(*fss_files(fss, "eiffel_tower/1"))
    (fss / "FSS-1000" / "readme.txt").touch()
    for image_id in LEFT_OUT:
        image, mask = fss_files(fss, image_id)
        add_image(image, box_mask())
        add_image(mask, box_mask((96, 48), BOX))
    data = Fss1000(fss, size=32)
    data.check()
    assert len(data) == 9


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("suffixes", [(".JPG", ".PNG"), (".jpg", ".png")])
def test_images_of_every_mode_size_and_case(fss, mode, suffixes):
    image, mask = (path.with_suffix(suffix) for path, suffix in zip(fss_files(fss, "taxi/3"), suffixes))
    marked = add_pair(image, mask, size=(101, 45), image_mode=mode)
    picture, labels = Fss1000(fss, size=32).original("taxi/3")
    assert np.array_equal(labels.numpy(), marked * class_ids()["taxi"])
    assert picture.shape == (3, 101, 45)
    assert picture[0].numpy()[marked].min() > 128 > picture[0].numpy()[~marked].max()


def test_an_image_with_an_empty_mask_is_listed_and_never_drawn(fss):
    add_mask(fss_files(fss, "taxi/2")[1], np.zeros(SIZE, dtype=bool))
    data = Fss1000(fss, size=32)
    assert data.contents["taxi/2"].held == frozenset()
    assert "taxi/2" in data.ids
    assert data.images_by_class[class_ids()["taxi"]] == ("taxi/1", "taxi/10")


# Medical images


def add_lesion(root: Path, name: str, *, folder: str = "") -> None:
    base = root / "ISIC"
    add_pair(
        base / "ISIC2018_Task1-2_Training_Input" / folder / f"{name}.jpg",
        base / "ISIC2018_Task1_Training_GroundTruth" / f"{name}_segmentation.png",
    )


TABLE = "\ufeffID,Class\r\nISIC_0000000,nevus\r\nISIC_0000004, melanoma\r\nISIC_0010181,seborrheic_keratosis\r\n"
"""As published: a mark at the start, and an underscore."""

LESION_OF = {"ISIC_0000000": "nevus", "ISIC_0000004": "melanoma", "ISIC_0010181": "seborrheic keratosis"}


@pytest.fixture
def isic(tmp_path) -> Path:
    """The raw layout with one lesion of each kind."""
    for name in LESION_OF:
        add_lesion(tmp_path, name)
    (tmp_path / "ISIC" / "class_id.csv").write_bytes(TABLE.encode())
    return tmp_path


def sort_images(root: Path, numbers: str) -> None:
    """Sort the images into folders, and copies of them among the masks, as a released script does."""
    inputs = root / "ISIC" / "ISIC2018_Task1-2_Training_Input"
    for name, number in zip(LESION_OF, numbers):
        copied = root / "ISIC" / "ISIC2018_Task1_Training_GroundTruth" / number / f"{name}_segmentation.png"
        for folder in (inputs / number, copied.parent):
            folder.mkdir(exist_ok=True)
        shutil.copy(inputs / f"{name}.jpg", copied)
        shutil.copy(inputs / f"{name}.jpg", inputs / number)
    (root / "ISIC" / "class_id.csv").unlink()


def lesions(data: Isic) -> dict[str, str]:
    return {i: data.class_names[c] for i in data.ids for c in data.contents[i].held}


def test_lesions_by_the_published_table(isic):
    (isic / "ISIC" / "ISIC2018_Task1-2_Training_Input" / "LICENSE.txt").touch()
    data = Isic(isic, size=32)
    data.check()
    assert lesions(data) == LESION_OF
    assert (data.name, data.domain, list(data.class_names)) == ("isic", "isic", list(LESIONS.values()))


@pytest.mark.parametrize(("way", "numbers"), [("ifa", "132"), ("gf_sam", "123")])
def test_lesions_by_the_folders_they_were_sorted_into(isic, way, numbers):
    sort_images(isic, numbers)
    assert lesions(Isic(isic, sorted_by=way)) == LESION_OF
    other = "gf_sam" if way == "ifa" else "ifa"
    with pytest.raises(DataError, match=rf"ISIC_0000004\.jpg is a melanoma, .*sorted by '{other}': pass .*'{way}'"):
        Isic(isic, sorted_by=other)
    with pytest.raises(ValueError, match=r"one of ifa, gf_sam; asked for 'patnet'"):
        Isic(isic, sorted_by="patnet")
    # With the table the folders do not matter.
    (isic / "ISIC" / "class_id.csv").write_bytes(TABLE.encode())
    assert lesions(Isic(isic, sorted_by=other)) == LESION_OF


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (TABLE.replace("nevus", "naevus"), r"line 2: 'ISIC_0000000,naevus' is not an image and one of nevus, melanoma"),
        (TABLE + "ISIC_0000005\r\n", r"line 5: 'ISIC_0000005' is not an image"),
        (TABLE.replace("ISIC_0000004", "ISIC_9"), r"class of .*ISIC_0000004\.jpg is not known: "),
        (None, r"class of .*ISIC_0000000\.jpg is not known: .* 2 more like it\. \nTo get it, register"),
    ],
)
def test_images_whose_kind_is_not_known(isic, table, message):
    path = isic / "ISIC" / "class_id.csv"
    path.unlink() if table is None else path.write_text(table, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        Isic(isic)


def test_a_table_that_is_no_text(isic):
    (isic / "ISIC" / "class_id.csv").write_bytes(b"\xff\xfe\x00I\x00D\x80")
    with pytest.raises(DataError, match=r"class_id\.csv is no table in UTF-8"):
        Isic(isic)


def test_lungs_with_and_without_a_suffix_to_their_mask(tmp_path):
    folder = tmp_path / "LungSegmentation"
    for name, mask in (("CHNCXR_0001_0", "CHNCXR_0001_0_mask"), ("MCUCXR_0006_1", "MCUCXR_0006_1")):
        add_pair(folder / "CXR_png" / f"{name}.png", folder / "masks" / f"{mask}.png", image_mode="L")
    add_image(folder / "CXR_png" / "CHNCXR_0025_0.png", box_mask())
    data = ChestXray(tmp_path, size=32)
    data.check()
    assert data.ids == ("CHNCXR_0001_0", "MCUCXR_0006_1")
    assert data.class_names == {class_id("lung"): "lung"}
    assert [len(images) for images in data.images_by_class.values()] == [2]
    parts = {"shenzhen": ("CHNCXR_0001_0",), "montgomery": ("MCUCXR_0006_1",)}
    for part, ids in parts.items():
        assert ChestXray(tmp_path, part=part).ids == ids
        assert ChestXray(tmp_path, part=part).name == f"chest_xray_{part}"
    with pytest.raises(ValueError, match="are all, shenzhen, montgomery; asked for 'china'"):
        ChestXray(tmp_path, part="china")
    (folder / "CXR_png" / "CHNCXR_0001_0.png").unlink()
    with pytest.raises(
        DataError, match=r"CHNCXR_0001_0_mask\.png has no image of its name below .*LungSegmentation\. "
    ):
        ChestXray(tmp_path)


def test_the_task_of_chest_x_rays_asks_what_published_numbers_are_of(tmp_path, monkeypatch):
    folder = tmp_path / "LungSegmentation"
    for n in range(FEWEST_IMAGES):
        add_pair(folder / "CXR_png" / f"CHNCXR_{n}.png", folder / "masks" / f"CHNCXR_{n}_mask.png")
        add_pair(folder / "CXR_png" / f"MCUCXR_{n}.png", folder / "masks" / f"MCUCXR_{n}.png")
    monkeypatch.setenv("FSSLIB_DATA", str(tmp_path))
    task = open_task("untrained", source="chest_xray", size=32)
    assert task.tests["chest_xray"].ids == tuple(f"CHNCXR_{n}" for n in range(FEWEST_IMAGES))
    assert task.test_classes == (class_id("lung"),)


def test_polyps_with_masks_stored_as_jpeg(tmp_path):
    folder = tmp_path / "Kvasir-SEG"
    marked = add_pair(folder / "images" / "cju0.jpg", folder / "masks" / "cju0.jpg", mode="RGB")
    (folder / "masks" / "Thumbs.db").touch()
    data = Kvasir(tmp_path, size=32)
    assert data.class_names == {class_id("polyp"): "polyp"}
    assert np.array_equal(data.original("cju0")[1].numpy(), marked * class_id("polyp"))


# Damage


def photograph(image: Path, mask: Path) -> None:
    Image.fromarray(np.full((*SIZE, 3), (180, 120, 90), dtype=np.uint8)).save(mask)


def numbers(image: Path, mask: Path) -> None:
    Image.fromarray(box_mask().astype(np.uint8)).save(mask)


def red_palette(image: Path, mask: Path) -> None:
    picture = Image.fromarray(box_mask().astype(np.uint8)).convert("P")
    picture.putpalette([0, 0, 0, 128, 0, 0] + [0] * 762)
    picture.save(mask)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda image, mask: mask.unlink(), r"taxi.2\.jpg has no mask of its name below .*taxi\. Unpack"),
        (lambda image, mask: image.unlink(), r"taxi.2\.png has no image of its name below .*taxi\. Unpack"),
        (lambda image, mask: cut_short(mask), r"taxi.2\.png cannot be read .*restore it"),
        (lambda image, mask: cut_short(image), r"taxi.2\.jpg cannot be read .*restore it"),
        (lambda image, mask: image.write_bytes(b""), r"taxi.2\.jpg cannot be read"),
        (
            lambda image, mask: add_mask(mask, box_mask((72, 56))),
            r"taxi.2\.png: the image is 72 x 56 pixels, .*56 x 72",
        ),
        (photograph, r"taxi.2\.png is a picture in colours, and no black and white mask"),
        (numbers, r"taxi.2\.png is all dark: its brightest pixel has 1,"),
        (red_palette, r"taxi.2\.png is a picture in colours, .*a palette\. Restore"),
    ],
    ids=["no mask", "no image", "short mask", "short image", "blank", "size", "photograph", "numbers", "palette"],
)
def test_damaged_pairs_are_named_with_the_next_step(fss, damage, message):
    damage(*fss_files(fss, "taxi/2"))
    with pytest.raises(DataError, match=message):
        Fss1000(fss, size=32).check()


@pytest.mark.parametrize(
    ("reader", "folder", "how"),
    [
        (Fss1000, "FSS-1000", "HKUSTCV/FSS-1000"),
        (Isic, "ISIC.ISIC2018_Task1-2_Training_Input", "challenge.isic-archive.com"),
        (ChestXray, "LungSegmentation.CXR_png", "chest-xray-masks-and-labels"),
        (Kvasir, "Kvasir-SEG.images", "datasets.simula.no"),
    ],
)
def test_without_data_the_message_says_how_to_get_it(tmp_path, monkeypatch, reader, folder, how):
    monkeypatch.setenv("FSSLIB_DATA", str(tmp_path))
    with pytest.raises(DataError, match=rf"(?s){folder}.*To get it, .*{how}.*Set FSSLIB_DATA"):
        reader()


def test_an_empty_folder(tmp_path):
    for part in ("images", "masks"):
        (tmp_path / "Kvasir-SEG" / part).mkdir(parents=True)
    with pytest.raises(DataError, match="Kvasir-SEG holds no images with masks"):
        Kvasir(tmp_path)


# The real images


@pytest.fixture(scope="module")
def real() -> tuple[Fss1000, Kvasir]:
    if not os.environ.get("FSSLIB_DATA"):
        pytest.skip("FSSLIB_DATA is not set: no real images to read")
    found = Fss1000(size=128), Kvasir(size=128)
    if [len(data) for data in found] != [5, 5]:
        pytest.skip("FSSLIB_DATA holds more of FSS-1000 and Kvasir-SEG than the images these facts are of")
    return found


def edges_along(image: torch.Tensor, marked: torch.Tensor) -> float:
    """Mean step in brightness across the outline of a mask."""
    grey, marked = image.float().mean(0), marked.float()
    steps = [(grey[1:] - grey[:-1]).abs()[(marked[1:] != marked[:-1])]]
    steps += [(grey[:, 1:] - grey[:, :-1]).abs()[(marked[:, 1:] != marked[:, :-1])]]
    return float(torch.cat(steps).mean())


@pytest.mark.realdata
def test_outlines_of_real_masks_lie_on_edges_of_their_images(real):
    """Twice the step in brightness that the same outlines, mirrored, lie on. Not of polyps: they have no sharp edge."""
    elephants = [real[0].original(image_id) for image_id in real[0].ids]
    true = np.mean([edges_along(image, labels > 0) for image, labels in elephants])
    mirrored = np.mean([edges_along(image, labels.flip(1) > 0) for image, labels in elephants])
    assert true > 2 * mirrored


@pytest.mark.realdata
def test_real_images_are_all_there_and_make_episodes(real):
    elephants = real[0]
    assert elephants.class_names == {2013: "african elephant"}
    assert elephants.ids == tuple(f"african_elephant/{number}" for number in range(3, 8))
    # Of the elephants' pixels, as counted with Pillow; polyps cover a quarter.
    shares = [float((elephants.original(i)[1] > 0).float().mean()) for i in elephants.ids]
    assert shares == pytest.approx([0.2152, 0.1217, 0.3222, 0.2697, 0.3896], abs=5e-5)
    assert [len(images) for data in real for images in data.images_by_class.values()] == [5, 5]
    for data in real:
        data.check()
        data.episode(data.sample(list(data.class_names), 6, shots=4)).check_values()


@pytest.mark.realdata
def test_no_real_image_passes_for_its_mask_in_grey_or_in_colour(real, tmp_path):
    for path in (path for data in real for i in data.ids for path in data.files_of(i)[:1]):
        with Image.open(path) as image:
            for mode in ("L", "RGB"):
                image.convert(mode).save(tmp_path / "mask.png")
                with pytest.raises(DataError, match=r"is a picture in|a tone of"):
                    read_mask(tmp_path / "mask.png")

"""DeepGlobe: photographs cut into crops by the published rule, crops read in either layout, and damage. 5 s."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fsslib.data.deepglobe import CLASS_NAMES, DeepGlobe, cut_crops
from fsslib.data.images import DataError
from fsslib.data.names import class_id

COLOURS = {
    0: (0, 0, 0),
    1: (255, 255, 0),
    2: (0, 255, 255),
    3: (255, 0, 255),
    4: (0, 255, 0),
    5: (0, 0, 255),
    6: (255, 255, 255),
}
"""As published, by folder: unknown, agriculture, urban, range, forest, water, barren."""

SIDE, CROP = 96, 16


def land(seed: int) -> np.ndarray:
    """A map of classes, 0 unknown: in blocks of half a crop, with a rim and a dot that are too small to count."""
    rng = np.random.default_rng(seed)
    blocks = rng.choice(7, (12, 12))
    blocks[:2, :6] = 4
    numbers = blocks.repeat(CROP // 2, 0).repeat(CROP // 2, 1)
    numbers[20:22, 20:22] = (numbers[20, 20] + 1) % 7
    return numbers


def add_photograph(root: Path, name: str, numbers: np.ndarray) -> None:
    """A photograph whose brightness tells the class, and its mask in colours that are a little off."""
    folder = root / "Deepglobe" / "train"
    folder.mkdir(parents=True, exist_ok=True)
    picture = (30 * numbers + 20)[..., None].repeat(3, 2).astype(np.uint8)
    Image.fromarray(picture).save(folder / f"{name}_sat.jpg", quality=95)
    colours = np.array([COLOURS[k] for k in range(7)])[numbers]
    off = np.random.default_rng(1).integers(0, 32, colours.shape)
    Image.fromarray(np.where(colours > 0, 255 - off, off).astype(np.uint8)).save(folder / f"{name}_mask.png")


def expected_crops(photographs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The rule in plain words: two colours or more, the rarest above 4.8 %."""
    crops = {}
    for name, numbers in photographs.items():
        for i in range(6):
            for j in range(6):
                crop = numbers[CROP * i : CROP * (i + 1), CROP * j : CROP * (j + 1)]
                shares = [np.mean(crop == k) for k in np.unique(crop)]
                if len(shares) > 1 and min(shares) > 0.048:
                    crops[f"{name}_sat_{i}{j}"] = crop
    return crops


PHOTOGRAPHS = {"119": land(0), "2334": land(3)}
CROPS = expected_crops(PHOTOGRAPHS)


@pytest.fixture
def raw(tmp_path) -> Path:
    for name, numbers in PHOTOGRAPHS.items():
        add_photograph(tmp_path, name, numbers)
    (tmp_path / "Deepglobe" / "train" / "Thumbs.db").touch()
    return tmp_path


@pytest.fixture(scope="module")
def cut_once(tmp_path_factory) -> tuple[Path, dict[str, int]]:
    root = tmp_path_factory.mktemp("data")
    for name, numbers in PHOTOGRAPHS.items():
        add_photograph(root, name, numbers)
    return root, cut_crops(root)


@pytest.fixture
def tree(cut_once, tmp_path) -> Path:
    """The crops as cut, which a test may damage."""
    shutil.copytree(cut_once[0], tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_the_rule_keeps_the_right_crops_and_counts_them(cut_once):
    root, counts = cut_once
    listed = (root / "Deepglobe" / "04_train_cat" / "crops.txt").read_text().splitlines()
    expected = sorted(f"{k}/{name}" for name, crop in CROPS.items() for k in np.unique(crop) if k)
    assert listed == expected
    assert counts == {CLASS_NAMES[k]: sum(line.startswith(f"{k}/") for line in expected) for k in CLASS_NAMES}
    # One colour is too few, as are four pixels of another.
    assert {"119_sat_00", "119_sat_11"}.isdisjoint(CROPS)
    assert 20 < len(CROPS) < 72


def test_crops_are_read_as_one_map_of_their_classes(cut_once):
    data = DeepGlobe(cut_once[0], size=32)
    data.check()
    assert set(data.ids) == set(CROPS)
    assert list(data.class_names.values()) == list(CLASS_NAMES.values())
    ids = np.array([0, *data.class_names])
    for name, crop in CROPS.items():
        image, labels = data.original(name)
        assert np.array_equal(labels.numpy(), ids[crop])
        assert np.abs(image[0].numpy().astype(int) - (30 * crop + 20)).mean() < 5
        assert len(data.files_of(name)) == 1 + len(set(crop.flat) - {0})
    assert {data.class_names[c]: len(images) for c, images in data.images_by_class.items()} == cut_once[1]


def test_supports_show_other_photographs_than_the_query(cut_once):
    data = DeepGlobe(cut_once[0], size=32)
    rows = data.sample(data.usable_classes(minimum_images=4), 20, ways=2, shots=1)
    data.episode(rows).check_values()
    assert all(i.split("_")[0] != row.query.split("_")[0] for row in rows for way in row.supports for i in way)


def test_crops_as_patnet_published_them(tree):
    folder = tree / "Deepglobe"
    for k in CLASS_NAMES:
        (folder / "04_train_cat" / str(k)).rename(folder / str(k))
        for mask in list((folder / str(k) / "test" / "groundtruth").iterdir()):
            mask.rename(mask.with_name(mask.name.replace("_mask_", "_sat_").replace(".png", ".PNG")))
    shutil.rmtree(folder / "04_train_cat")
    assert set(DeepGlobe(tree, size=32).ids) == set(CROPS)


def test_cutting_twice_or_after_a_stop(raw):
    mask = raw / "Deepglobe" / "train" / "2334_mask.png"
    whole = mask.read_bytes()
    mask.write_bytes(whole[:100])
    with pytest.raises(DataError, match=r"2334_mask\.png cannot be read"):
        cut_crops(raw)
    assert not (raw / "Deepglobe" / "04_train_cat").exists()
    mask.write_bytes(whole)
    (raw / "Deepglobe" / "04_train_cat.part" / "1" / "test" / "origin" / "9_sat_00.jpg").touch()
    assert sum(cut_crops(raw).values()) == sum(len(set(crop.flat) - {0}) for crop in CROPS.values())
    assert set(DeepGlobe(raw, size=32).ids) == set(CROPS)
    with pytest.raises(DataError, match=r"crops are there already: .*Delete that folder"):
        cut_crops(raw)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "119_mask.png").unlink(), r"119_sat\.jpg has no mask of its name below .*train\."),
        (lambda folder: (folder / "119_sat.jpg").unlink(), r"119_mask\.png has no image of its name below .*train\."),
        (shutil.rmtree, r"no folder .*train\.\nTo get it, unpack kaggle"),
        (
            lambda folder: Image.new("RGB", (60, 96)).save(folder / "119_mask.png"),
            r"119_mask\.png: the image is 96 x 96 pixels, its label map 60 x 96",
        ),
    ],
    ids=["no mask", "no image", "no folder", "size"],
)
def test_photographs_that_cannot_be_cut(raw, damage, message):
    damage(raw / "Deepglobe" / "train")
    with pytest.raises(DataError, match=message):
        cut_crops(raw)


def test_damaged_crops_are_named_with_the_next_step(tree):
    folder = tree / "Deepglobe" / "04_train_cat"
    name, crop = next((name, crop) for name, crop in CROPS.items() if len(set(crop.flat) - {0}) > 1)
    first, second = sorted(set(crop.flat) - {0})[:2]
    masks = [folder / str(k) / "test" / "groundtruth" / f"{name.replace('sat', 'mask')}.png" for k in (first, second)]
    whole = masks[1].read_bytes()
    shutil.copy(masks[0], masks[1])
    with pytest.raises(DataError, match=rf"{masks[1].name} overlaps another class's mask"):
        DeepGlobe(tree)
    Image.new("L", (16, 8)).save(masks[1])
    with pytest.raises(DataError, match=rf"{masks[1].name}: the image is 16 x 16 pixels, its label map 16 x 8"):
        DeepGlobe(tree)
    masks[1].unlink()
    with pytest.raises(DataError, match=rf"{name}\.jpg has no mask of its name below .*test\. "):
        DeepGlobe(tree)
    (folder / str(second) / "test" / "origin" / f"{name}.jpg").unlink()
    with pytest.raises(DataError, match=rf"crops there: {second}/{name} is missing\. Delete"):
        DeepGlobe(tree)
    masks[1].write_bytes(whole)
    shutil.rmtree(folder / "6")
    with pytest.raises(DataError, match=r"no folder .*6.test.origin\.\nTo get it"):
        DeepGlobe(tree)


def test_the_classes_are_of_all_data_sets():
    assert class_id("agriculture land") == 103
    assert [class_id(name) for name in CLASS_NAMES.values()] == list(range(103, 109))

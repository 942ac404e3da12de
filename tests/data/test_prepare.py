"""What is made of published archives, whole or not at all: VOC's SegmentationClassAug, and DeepGlobe's crops. 5 s."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from fsslib.data import prepare
from fsslib.data.prepare import cut_crops, merge_sbd
from fsslib.data.sets import open_images
from fsslib.files import DataError
from tests.data import trees

VOC, SBD = Path("VOCdevkit/VOC2012"), Path("VOCdevkit/SBD/cls")
AUG, LISTS = VOC / "SegmentationClassAug", VOC / "ImageSets" / "Segmentation"
DRAWN_TRAINAUG = 4
"""Of the 6 images drawn 2 are val's."""


def draw_voc_and_sbd(root: Path) -> dict[str, np.ndarray]:
    """VOC 2012 and SBD as their archives unpack, and the label maps that should come of them.

    The masks of 2007_000002 and 3 are SBD's, without void, the others VOC's. SBD has other masks for two of VOC's.
    """
    expected = {}
    for name, (path,) in trees.draw_pascal(root).maps.items():
        with Image.open(path) as image:
            expected[name] = np.array(image)
    (root / AUG).rename(root / VOC / "SegmentationClass")
    (root / SBD).mkdir(parents=True)
    for n in (2, 3):
        expected[f"2007_{n:06d}"][expected[f"2007_{n:06d}"] == trees.VOID] = 0
        (root / VOC / "SegmentationClass" / f"2007_{n:06d}.png").unlink()
    for n in (0, 2, 3, 4):
        labels = expected[f"2007_{n:06d}"] if n in (2, 3) else np.zeros((4, 4), dtype=np.uint8)
        content = {"GTcls": {"Segmentation": labels, "CategoriesPresent": [1]}}
        savemat(root / SBD / f"2007_{n:06d}.mat", content, do_compression=True)
    for part, numbers in {"train": (0, 1), "val": (4, 5)}.items():
        (root / LISTS / f"{part}.txt").write_text("".join(f"2007_{n:06d}\n" for n in numbers))
    (root / LISTS / "trainaug.txt").unlink()
    return expected


@pytest.fixture
def voc(tmp_path, monkeypatch) -> dict[str, np.ndarray]:
    """The label maps expected, of what is drawn below tmp_path."""
    monkeypatch.setattr(prepare, "TRAINAUG", DRAWN_TRAINAUG)
    return draw_voc_and_sbd(tmp_path)


def test_vocs_masks_are_kept_and_sbds_are_added(tmp_path, voc):
    (tmp_path / f"{AUG}.part").mkdir()  # of a call that was stopped
    merge_sbd(tmp_path)
    assert sorted(path.stem for path in (tmp_path / AUG).iterdir()) == sorted(voc)
    for name, labels in voc.items():
        with Image.open(tmp_path / AUG / f"{name}.png") as image:
            assert np.array_equal(np.array(image), labels), name
    assert (tmp_path / LISTS / "trainaug.txt").read_text().split() == sorted(voc)[:4]
    assert {path.name for path in (tmp_path / VOC).iterdir() if "Aug" in path.name} == {AUG.name}
    assert open_images("pascal", root=tmp_path, size=32).ids == tuple(sorted(voc))


def test_what_is_there_is_left_alone(tmp_path, voc):
    (tmp_path / AUG).mkdir()
    (tmp_path / LISTS / "trainaug.txt").write_text("mine\n")
    merge_sbd(tmp_path)
    assert list((tmp_path / AUG).iterdir()) == []
    assert (tmp_path / LISTS / "trainaug.txt").read_text() == "mine\n"


MASK = SBD / "2007_000003.mat"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda root: (root / MASK).write_bytes((root / MASK).read_bytes()[:200]), "3.mat cannot be read .*Restore it"),
        (lambda root: (root / MASK).unlink(), "a trainaug of 3 images, where 4 are"),
        (lambda root: shutil.rmtree(root / VOC / "SegmentationClass"), "cannot be made .*away"),
        (lambda root: (root / LISTS / "train.txt").unlink(), r"cannot be made .*train\.txt.*fetch it again"),
    ],
    ids=["damaged mask", "missing mask", "no masks of VOC", "no list"],
)
def test_incomplete_archives_are_told_and_leave_nothing(tmp_path, voc, damage, said):
    damage(tmp_path)
    with pytest.raises(DataError, match=said):
        merge_sbd(tmp_path)
    assert not (tmp_path / AUG).exists()
    assert not (tmp_path / LISTS / "trainaug.txt").exists()


# DeepGlobe. As published, by folder: unknown, agriculture, urban, range, forest, water, barren.

COLOURS = np.array([(0, 0, 0), (255, 255, 0), (0, 255, 255), (255, 0, 255), (0, 255, 0), (0, 0, 255), (255, 255, 255)])
KINDS = ("agriculture land", "urban land", "rangeland", "forest land", "water", "barren land")
CROP, TRAIN, CUT = 16, Path("Deepglobe/train"), Path("Deepglobe/04_train_cat")


def land(seed: int) -> np.ndarray:
    """A map of kinds, 0 unknown: in blocks of half a crop, with a rim and a dot that are too small to count."""
    blocks = np.random.default_rng(seed).choice(7, (12, 12))
    blocks[:2, :6] = 4
    numbers = blocks.repeat(CROP // 2, 0).repeat(CROP // 2, 1)
    numbers[20:22, 20:22] = (numbers[20, 20] + 1) % 7
    return numbers


PHOTOGRAPHS = {"119": land(0), "2334": land(3)}


def kept_crops() -> dict[str, np.ndarray]:
    """The rule in plain words: two colours or more, the rarest above 4.8 %."""
    crops = {}
    for name, numbers in PHOTOGRAPHS.items():
        for i in range(6):
            for j in range(6):
                crop = numbers[CROP * i : CROP * (i + 1), CROP * j : CROP * (j + 1)]
                shares = [np.mean(crop == kind) for kind in np.unique(crop)]
                if len(shares) > 1 and min(shares) > 0.048:
                    crops[f"{name}_sat_{i}{j}"] = crop
    return crops


CROPS = kept_crops()


@pytest.fixture
def deepglobe(tmp_path) -> Path:
    """Photographs whose brightness tells the kind, and their masks in colours that are a little off."""
    (tmp_path / TRAIN).mkdir(parents=True)
    (tmp_path / TRAIN / "Thumbs.db").touch()
    for name, numbers in PHOTOGRAPHS.items():
        picture = (30 * numbers + 20)[..., None].repeat(3, 2).astype(np.uint8)
        Image.fromarray(picture).save(tmp_path / TRAIN / f"{name}_sat.jpg", quality=95)
        off = np.random.default_rng(1).integers(0, 32, (*numbers.shape, 3))
        colours = np.where(COLOURS[numbers] > 0, 255 - off, off)
        Image.fromarray(colours.astype(np.uint8)).save(tmp_path / TRAIN / f"{name}_mask.png")
    return tmp_path


def test_the_rule_keeps_the_right_crops_counts_them_and_they_are_read_as_drawn(deepglobe):
    counts = cut_crops(deepglobe)
    expected = sorted(f"{kind}/{name}" for name, crop in CROPS.items() for kind in np.unique(crop) if kind)
    assert (deepglobe / CUT / "crops.txt").read_text().splitlines() == expected
    assert counts == {kind: sum(line[0] == str(n) for line in expected) for n, kind in enumerate(KINDS, start=1)}
    # One colour is too few, as are four pixels of another.
    assert {"119_sat_00", "119_sat_11"}.isdisjoint(CROPS)
    assert 20 < len(CROPS) < 72

    images = open_images("deepglobe", root=deepglobe, size=32)
    assert images.ids == tuple(sorted(CROPS))
    # Rows of episodes and committed results hold these ids.
    assert images.class_names == dict(enumerate(KINDS, start=103))
    for name, crop in CROPS.items():
        image, labels = images.original(name)
        assert np.array_equal(labels, np.array([0, *images.class_names])[crop])
        assert np.abs(image[0].numpy().astype(int) - (30 * crop + 20)).mean() < 5
        assert len(images.files[name].files) == 1 + len({*crop.flat} - {0})


def test_cutting_twice_or_after_a_stop(deepglobe):
    mask = deepglobe / TRAIN / "2334_mask.png"
    whole = mask.read_bytes()
    mask.write_bytes(whole[:100])
    with pytest.raises(DataError, match=r"2334_mask\.png cannot be read"):
        cut_crops(deepglobe)
    assert not (deepglobe / CUT).exists()
    mask.write_bytes(whole)
    (deepglobe / f"{CUT}.part" / "1" / "test" / "origin" / "9_sat_00.jpg").touch()
    assert sum(cut_crops(deepglobe).values()) == sum(len({*crop.flat} - {0}) for crop in CROPS.values())
    assert set(open_images("deepglobe", root=deepglobe, size=32).ids) == set(CROPS)
    with pytest.raises(DataError, match=r"crops are there already: .*Delete that folder"):
        cut_crops(deepglobe)


def test_photographs_that_cannot_be_cut(deepglobe):
    Image.new("RGB", (60, 96)).save(deepglobe / TRAIN / "119_mask.png")
    with pytest.raises(DataError, match=r"119_mask\.png: the image is 96 x 96 pixels, its label map 60 x 96"):
        cut_crops(deepglobe)
    assert not (deepglobe / CUT).exists()
    shutil.rmtree(deepglobe / TRAIN)
    with pytest.raises(DataError, match=r"there is no .*train.*\nTo get it, unpack kaggle"):
        cut_crops(deepglobe)

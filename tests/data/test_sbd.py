"""SBD's masks and VOC's become SegmentationClassAug and trainaug, whole or not at all. 3 s."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from fsslib.data import sbd
from fsslib.data.images import DataError
from fsslib.data.pascal import PascalVOC
from tests.data.voc_fixture import add_list, draw_voc

DRAWN_TRAINAUG = 45
"""Of the 85 images drawn 40 are val's."""


def draw_voc_and_sbd(root: Path) -> dict[str, np.ndarray]:
    """VOC 2012 and SBD as their archives unpack, and the label maps that should come of them.

    Grey masks without void are SBD's, the others VOC's. SBD has a mask of its own, another one, for two of VOC's.
    """
    draw_voc(root)
    voc, outlines = root / "VOCdevkit" / "VOC2012", root / "VOCdevkit" / "SBD" / "cls"
    lists = voc / "ImageSets" / "Segmentation"
    outlines.mkdir(parents=True)
    (voc / "SegmentationClass").mkdir()
    expected, ours = {}, []
    for path in sorted((voc / "SegmentationClassAug").glob("*.png")):
        with Image.open(path) as image:
            expected[path.stem], mode = np.array(image), image.mode
        if mode == "L":
            save_outline(outlines, path.stem, expected[path.stem])
        else:
            shutil.copy(path, voc / "SegmentationClass")
            ours.append(path.stem)
    val = (lists / "val.txt").read_text().split()
    train = [name for name in ours if name not in val]
    for name in (val[0], train[0]):
        save_outline(outlines, name, np.zeros((4, 4), dtype=np.uint8))
    add_list(root, "train", train)
    (lists / "trainaug.txt").unlink()
    shutil.rmtree(voc / "SegmentationClassAug")
    return expected


def save_outline(folder: Path, name: str, labels: np.ndarray) -> None:
    savemat(folder / f"{name}.mat", {"GTcls": {"Segmentation": labels, "CategoriesPresent": [1]}}, do_compression=True)


@pytest.fixture
def drawn(tmp_path, monkeypatch) -> tuple[Path, dict[str, np.ndarray]]:
    """The data folder, and the label maps expected."""
    monkeypatch.setattr(sbd, "TRAINAUG", DRAWN_TRAINAUG)
    return tmp_path, draw_voc_and_sbd(tmp_path)


def files(root: Path) -> tuple[Path, Path]:
    voc = root / "VOCdevkit" / "VOC2012"
    return voc / "SegmentationClassAug", voc / "ImageSets" / "Segmentation" / "trainaug.txt"


def test_vocs_masks_are_kept_and_sbds_are_added(drawn):
    root, expected = drawn
    folder, trainaug = files(root)
    (folder.with_name(f"{folder.name}.part")).mkdir()  # of a call that was stopped
    sbd.merge(root)
    assert sorted(path.stem for path in folder.iterdir()) == sorted(expected)
    for name, labels in expected.items():
        with Image.open(folder / f"{name}.png") as image:
            assert np.array_equal(np.array(image), labels), name
    names = trainaug.read_text().splitlines()
    val = (trainaug.parent / "val.txt").read_text().split()
    assert names == sorted(expected.keys() - {*val})
    assert {path.name for path in folder.parent.iterdir() if "Aug" in path.name} == {folder.name}

    data = PascalVOC(root)
    data.check()
    assert len(data) == len(expected)


def test_what_is_there_is_left_alone(drawn):
    root, _ = drawn
    folder, trainaug = files(root)
    folder.mkdir()
    trainaug.write_text("mine\n")
    sbd.merge(root)
    assert list(folder.iterdir()) == []
    assert trainaug.read_text() == "mine\n"


def cut_short(root: Path) -> None:
    path = sorted((root / "VOCdevkit" / "SBD" / "cls").glob("*.mat"))[-1]
    path.write_bytes(path.read_bytes()[:200])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_short, r"\.mat cannot be read .*Restore it from benchmark\.tgz"),
        (
            lambda root: sorted((root / "VOCdevkit" / "SBD" / "cls").glob("*.mat"))[-1].unlink(),
            "a trainaug of 44 images, where 45 are",
        ),
        (lambda root: shutil.rmtree(root / "VOCdevkit" / "VOC2012" / "SegmentationClass"), "cannot be made .*away"),
        (lambda root: (files(root)[1].parent / "train.txt").unlink(), r"cannot be made .*train\.txt.*fetch it again"),
    ],
    ids=["damaged mask", "missing mask", "no masks of VOC", "no list"],
)
def test_incomplete_archives_are_told_and_leave_nothing(drawn, damage, message):
    root, _ = drawn
    damage(root)
    with pytest.raises(DataError, match=message):
        sbd.merge(root)
    assert not any(path.exists() for path in files(root))

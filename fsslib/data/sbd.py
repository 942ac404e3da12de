"""The masks of SBD in VOC's numbering, and the list trainaug, made from the official archives.

SBD (Hariharan et al., "Semantic contours from inverse detectors", ICCV 2011) outlines 11,355 images of VOC 2011.
"""

import shutil
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from fsslib.data.images import DataError

TRAINAUG = 10_582
"""Images of trainaug: those of SBD and of VOC's train, without VOC's val."""


def merge(root: Path) -> None:
    """Write VOC2012/SegmentationClassAug and ImageSets/Segmentation/trainaug.txt below the data folder `root`.

    Where VOC has a mask, it is taken as it is, for it marks what is unclear around objects; SBD's masks do not. Read
    are VOCdevkit/VOC2012 and VOCdevkit/SBD/cls. What is there already is left alone, and the folder appears whole or
    not at all. Raises DataError for missing and damaged files, and when trainaug does not come to TRAINAUG images.
    """
    voc, outlines = root / "VOCdevkit" / "VOC2012", root / "VOCdevkit" / "SBD" / "cls"
    lists, folder = voc / "ImageSets" / "Segmentation", voc / "SegmentationClassAug"
    try:
        masks = {path.stem: path for path in sorted(outlines.glob("*.mat"))}
        train, val = ((lists / f"{name}.txt").read_text(encoding="utf-8").split() for name in ("train", "val"))
        trainaug = sorted({*masks, *train} - {*val})
        if len(trainaug) != TRAINAUG:
            raise DataError(
                f"{outlines} and {lists} make a trainaug of {len(trainaug):,} images, where {TRAINAUG:,} are expected: "
                f"one of them is not complete. Move {root / 'VOCdevkit'} away and fetch it again."
            )
        if not folder.exists():
            unfinished = folder.with_name(f"{folder.name}.part")
            shutil.rmtree(unfinished, ignore_errors=True)
            shutil.copytree(voc / "SegmentationClass", unfinished)
            rest = [name for name in masks if not (unfinished / f"{name}.png").exists()]
            for name in tqdm(rest, "SegmentationClassAug", unit=" masks", disable=None):
                Image.fromarray(_read(masks[name])).save(unfinished / f"{name}.png")
            unfinished.rename(folder)
        if not (lists / "trainaug.txt").exists():
            (lists / "trainaug.txt").write_text("".join(f"{name}\n" for name in trainaug), encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"{folder} cannot be made ({error}). Make room, or where files are missing move {root / 'VOCdevkit'} away "
            "and fetch it again."
        ) from error


def _read(path: Path) -> np.ndarray:
    from scipy.io import loadmat

    try:
        return np.asarray(loadmat(path)["GTcls"]["Segmentation"][0, 0], dtype=np.uint8)
    except Exception as error:  # SciPy reports damage in many ways, TypeError and MatReadError among them
        raise DataError(f"{path} cannot be read ({error}). Restore it from benchmark.tgz.") from error

"""What is made once of published archives: VOC's SegmentationClassAug, and the crops of DeepGlobe."""

import shutil
from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from fsslib.data.decode import DataError, colour_codes, hold_sizes, read_image
from fsslib.data.layouts import Layout, find
from fsslib.data.quirks import CUT, LISTED
from fsslib.data.sets import LAYOUTS
from fsslib.paths import data_root

TRAINAUG = 10_582
"""Images of trainaug: those of SBD and of VOC's train, without VOC's val."""

CLASSES = LAYOUTS["deepglobe"].classes
PHOTOGRAPHS = Layout("deepglobe", ["Deepglobe/train/{name}_sat.jpg"], ["Deepglobe/train/{name}_mask.png"], {})

FOLDER_OF_COLOUR = {6: "1", 3: "2", 5: "3", 2: "4", 1: "5", 7: "6"}
"""The folder of a class by the number that its colour spells, 4 red + 2 green + 1 blue; black, 0, is unknown."""

CROPS = 6
"""Crops along either side of a photograph."""

SMALLEST_SHARE = 0.048
"""A crop is kept when the rarest of its two or more colours covers more than this share of it."""


def merge_sbd(root: Path) -> None:
    """Write VOC2012/SegmentationClassAug and ImageSets/Segmentation/trainaug.txt below the data folder `root`.

    SBD (Hariharan et al., "Semantic contours from inverse detectors", ICCV 2011) outlines 11,355 images of VOC 2011.
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
                Image.fromarray(_read_outlines(masks[name])).save(unfinished / f"{name}.png")
            unfinished.rename(folder)
        if not (lists / "trainaug.txt").exists():
            (lists / "trainaug.txt").write_text("".join(f"{name}\n" for name in trainaug), encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"{folder} cannot be made ({error}). Make room, or where files are missing move {root / 'VOCdevkit'} away "
            "and fetch it again."
        ) from error


def _read_outlines(path: Path) -> np.ndarray:
    from scipy.io import loadmat

    try:
        return np.asarray(loadmat(path)["GTcls"]["Segmentation"][0, 0], dtype=np.uint8)
    except Exception as error:  # SciPy reports damage in many ways, TypeError and MatReadError among them
        raise DataError(f"{path} cannot be read ({error}). Restore it from benchmark.tgz.") from error


def cut_crops(root: Path | str | None = None) -> dict[str, int]:
    """Cut the photographs of Deepglobe/train into crops, by PATNet's rule; the number of crops of each class.

    A photograph is cut into 6 x 6 crops, of 408 pixels for its 2448. A crop is kept when its mask has two colours or
    more, unknown land among them, and each covers more than SMALLEST_SHARE of it; it is written once for each class it
    shows. Colours count as on from 128, as the data set's own description says, where PATNet's script asks for exact
    ones. Images are stored as JPEG again, at quality 95, as there; another encoder, other bytes.

    All is written under another name and renamed at the end, so a run that was stopped leaves nothing half done. Raises
    DataError when the crops are there already, for missing or damaged photographs and masks, and for odd sizes.
    """
    root = data_root() if root is None else Path(root)
    folder = root / CUT
    if folder.exists():
        raise DataError(f"The crops are there already: {folder}. Delete that folder to cut them again.")
    photographs = find(PHOTOGRAPHS, root).files
    unfinished = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    for number in CLASSES:
        for part in ("origin", "groundtruth"):
            (unfinished / number / "test" / part).mkdir(parents=True)
    written = []
    for name, place in tqdm(photographs.items(), "cutting crops", leave=False, disable=None):
        image, codes = (read(path).numpy() for read, path in zip((read_image, colour_codes), place.files))
        hold_sizes(place.labels[""], image.shape, codes.shape)
        down, across = ([side * k // CROPS for k in range(CROPS + 1)] for side in codes.shape)
        for i, j in product(range(CROPS), repeat=2):
            at = slice(*down[i : i + 2]), slice(*across[j : j + 2])
            colours, counts = np.unique(codes[at], return_counts=True)
            if len(colours) < 2 or counts.min() <= SMALLEST_SHARE * counts.sum():
                continue
            picture = Image.fromarray(image[:, *at].transpose(1, 2, 0))
            for colour in {*colours.tolist()} & FOLDER_OF_COLOUR.keys():
                part = unfinished / FOLDER_OF_COLOUR[colour] / "test"
                written.append(f"{FOLDER_OF_COLOUR[colour]}/{name}_sat_{i}{j}")
                picture.save(part / "origin" / f"{name}_sat_{i}{j}.jpg", quality=95)
                marked = np.where(codes[at] == colour, 255, 0).astype(np.uint8)
                Image.fromarray(marked).save(part / "groundtruth" / f"{name}_mask_{i}{j}.png")
    (unfinished / LISTED).write_text("".join(f"{line}\n" for line in sorted(written)), encoding="utf-8")
    unfinished.rename(folder)
    counts = Counter(line.partition("/")[0] for line in written)
    return {class_name: counts[number] for number, class_name in CLASSES.items()}

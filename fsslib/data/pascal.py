"""PASCAL VOC 2012 with the SBD masks, and the folds of PASCAL-5i.

Expected below the data folder, as the archives unpack (SegmentationClassAug and trainaug.txt come with SBD's masks):

    VOCdevkit/VOC2012/JPEGImages/2007_000033.jpg
    VOCdevkit/VOC2012/SegmentationClassAug/2007_000033.png     0 background, 1..20 classes, 255 void
    VOCdevkit/VOC2012/ImageSets/Segmentation/{trainaug,train,val}.txt
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from fsslib.data.decode import DataError, hold_sizes, read_image, read_label_map, read_size, refuse
from fsslib.data.images import ImageClasses, LabelledImageSet, classes_in, scan_all
from fsslib.episodes import VOID
from fsslib.paths import data_root

CLASS_NAMES = {
    1: "aeroplane",
    2: "bicycle",
    3: "bird",
    4: "boat",
    5: "bottle",
    6: "bus",
    7: "car",
    8: "cat",
    9: "chair",
    10: "cow",
    11: "diningtable",
    12: "dog",
    13: "horse",
    14: "motorbike",
    15: "person",
    16: "pottedplant",
    17: "sheep",
    18: "sofa",
    19: "train",
    20: "tvmonitor",
}
"""The 20 classes by their number in the label maps, which is their global id."""

FOLDS = tuple(tuple(range(5 * fold + 1, 5 * fold + 6)) for fold in range(4))
"""The novel classes of each fold of PASCAL-5i: fold i tests 5i+1 .. 5i+5 (OSLSM, Shaban et al., BMVC 2017)."""

LISTS = ("trainaug", "train", "val")

HOW_TO_GET = """To get it:
  1. VOC 2012 (2 GB): https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar, unpacked in {root}
  2. SegmentationClassAug, the SBD masks in VOC's numbering, into {voc}. The README of github.com/juhongm999/hsnet links
     an archive. The list trainaug.txt, where you have it, goes into {voc}/ImageSets/Segmentation.
Set FSSLIB_DATA to the folder that holds VOCdevkit. The toy world (data "toy") needs no download."""


@dataclass(frozen=True)
class PascalFold:
    """One fold: images and classes to train on, images and novel classes to test on. The two share no image."""

    train: LabelledImageSet
    train_classes: tuple[int, ...]
    test: LabelledImageSet
    test_classes: tuple[int, ...]


class PascalVOC(LabelledImageSet):
    """All images of the lists with all 20 classes; `.fold(i)` parts them into training and test.

    `root` holds VOCdevkit (default: `data_root()`). `lists` names files in ImageSets/Segmentation without their ending,
    or paths relative to VOC2012 ending in .txt; by default all of trainaug, train and val that are there. Images named
    twice count once. Of the lists of other repositories only the image's name is read: "2007_000033__01" (HSNet) and
    "JPEGImages/2007_000033.jpg SegmentationClassAug/2007_000033.png" (PFENet).

    For a score without training over chosen classes, `.usable_classes` and `.sample` need no fold.

    Opening reads every label map and the header of every image: under a second for 566 small images, less than a minute
    for all 12,031 of VOC, and that once, as long as the files stay as they are. Raises DataError for missing folders,
    lists and files, and for label maps in colours, of another size than their image, or with values other than 0..20
    and 255. A damaged image is found when it is first used, or by `check()`.
    """

    def __init__(
        self,
        root: Path | str | None = None,
        *,
        lists: str | Sequence[str] | None = None,
        size: int = 256,
        keep_originals: bool = False,
    ):
        self.folder = find_folder(data_root() if root is None else Path(root))
        origins = read_lists(self.folder, (lists,) if isinstance(lists, str) else lists)
        self._check_files(origins)
        super().__init__(
            scan_all(f"pascal-{size}", {i: self._both_files(i) for i in origins}, lambda i: self._scan(i, size)),
            self._load_files,
            CLASS_NAMES,
            name="pascal",
            domain="photo",
            size=size,
            keep_originals=keep_originals,
            files_of=self._both_files,
        )

    def _both_files(self, image_id: str) -> tuple[Path, Path]:
        return self._image_path(image_id), self._label_path(image_id)

    def _image_path(self, image_id: str) -> Path:
        return self.folder / "JPEGImages" / f"{image_id}.jpg"

    def _label_path(self, image_id: str) -> Path:
        return self.folder / "SegmentationClassAug" / f"{image_id}.png"

    def _load_files(self, image_id: str) -> tuple[Tensor, Tensor]:
        return read_image(self._image_path(image_id)), read_label_map(self._label_path(image_id))

    def _check_files(self, origins: dict[str, str]) -> None:
        gone = {
            image_id: " and ".join(str(path) for path in self._both_files(image_id) if not path.is_file())
            for image_id in origins
        }
        refuse(
            {i: f"{origins[i]} names an image for which {paths} does not exist." for i, paths in gone.items() if paths},
            "Unpack the archive again, or take the line out of the list. SegmentationClassAug should hold the masks of "
            "all images, those of val too.",
        )

    def _scan(self, image_id: str, size: int) -> ImageClasses:
        path = self._label_path(image_id)
        labels = read_label_map(path)
        hold_sizes(path, read_size(self._image_path(image_id)), labels.shape)
        classes = classes_in(labels, size)
        if extra := sorted(classes.held - CLASS_NAMES.keys()):
            raise DataError(
                f"{path} holds the values {extra[:8]}; VOC's label maps hold 0 to 20 and {VOID}. It is no class map "
                "(an instance map, or saved in grey levels of its colours): restore it from SegmentationClassAug."
            )
        return classes

    def fold(self, fold: int, *, minimum_images: int = 20, minimum_training_images: int = 6) -> PascalFold:
        """Fold 0 to 3 of PASCAL-5i over all lists together.

        Training drops every image that holds a pixel of one of the fold's five novel classes, as BAM does (HSNet and
        PFENet keep them, with the novel objects as background); testing has exactly the dropped ones. Test classes are
        the novel classes with at least `minimum_images` images (0: all five), training classes the other classes with
        `minimum_training_images` left: six are what a five-shot episode needs.

        Raises DataError for an unknown fold, and when no novel or no training class has enough images.
        """
        if fold not in range(len(FOLDS)):
            raise DataError(f"PASCAL-5i has the folds 0, 1, 2 and 3; asked for {fold!r}.")
        novel = FOLDS[fold]
        base = [c for c in CLASS_NAMES if c not in novel]
        train = self.without_classes(novel)
        test = self.restricted(self.contents.keys() - train.contents.keys())
        test_classes = test.usable_classes(novel, minimum_images=minimum_images)
        if not test_classes:
            usable = [i for i in range(len(FOLDS)) if self.usable_classes(FOLDS[i], minimum_images=minimum_images)]
            raise DataError(
                f"Fold {fold} has no class with {minimum_images} images or more here: {test.describe(novel)}. "
                f"Folds that have: {', '.join(map(str, usable)) or 'none'}. Choose one of them, add images, or lower "
                "minimum_images."
            )
        train_classes = train.usable_classes(base, minimum_images=minimum_training_images)
        if not train_classes:
            raise DataError(
                f"Without the images of fold {fold}'s novel classes {len(train)} of {len(self)} images are left, and "
                f"no class has {minimum_training_images} of them: {train.describe(base)}. Add images, or lower "
                "minimum_training_images."
            )
        return PascalFold(train, train_classes, test, test_classes)


def find_folder(root: Path) -> Path:
    """The folder VOC2012 below the data folder `root`. Raises DataError with the next step when it is not complete."""
    voc = root / "VOCdevkit" / "VOC2012"
    for needed in (voc / "JPEGImages", voc / "SegmentationClassAug"):
        if not needed.is_dir():
            raise DataError(
                f"PASCAL VOC 2012 is not complete: there is no folder {needed}.\n"
                + HOW_TO_GET.format(root=root, voc=voc)
            )
    return voc


def read_lists(voc: Path, lists: Sequence[str] | None = None) -> dict[str, str]:
    """The images named in list files of the folder VOC2012, each with the list and line that named it first.

    Windows line ends and blank lines are fine. Raises DataError when a list is missing or all are empty.
    """
    folder = voc / "ImageSets" / "Segmentation"
    if lists is None:
        paths = [path for name in LISTS if (path := folder / f"{name}.txt").is_file()]
        if not paths:
            raise DataError(
                f"No list of images: {folder} holds none of {', '.join(f'{name}.txt' for name in LISTS)}. train.txt "
                "and val.txt come with VOC 2012, trainaug.txt with the SBD masks."
            )
    else:
        paths = [voc / name if name.endswith(".txt") else folder / f"{name}.txt" for name in lists]
    origins: dict[str, str] = {}
    for path in paths:
        if not path.is_file():
            there = ", ".join(sorted(p.name for p in folder.glob("*.txt"))) or "no lists"
            raise DataError(f"The list {path} does not exist. {folder} holds: {there}.")
        for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
            if line.strip():
                image_id = re.sub(r"__\d+$", "", Path(line.split()[0]).stem)
                origins.setdefault(image_id, f"{path}, line {number},")
    if not origins:
        raise DataError(f"The lists name no image: {', '.join(map(str, paths))}.")
    return origins

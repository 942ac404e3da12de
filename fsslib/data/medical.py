"""Medical images with a mask each: ISIC 2018 and chest X-rays of the CD-FSS benchmark, and Kvasir-SEG.

Expected below the data folder, as the archives unpack; suffixes may be in capitals:

    ISIC/ISIC2018_Task1-2_Training_Input/ISIC_0000000.jpg     or sorted into its folders 1, 2 and 3
    ISIC/ISIC2018_Task1_Training_GroundTruth/ISIC_0000000_segmentation.png
    ISIC/class_id.csv                                         needed unless the images are sorted
    LungSegmentation/CXR_png/CHNCXR_0001_0.png
    LungSegmentation/masks/CHNCXR_0001_0_mask.png             without _mask for the images from Montgomery
    Kvasir-SEG/{images,masks}/cju0qkwl35piu0993l0dewei2.jpg

CD-FSS is the benchmark of Lei et al. ("Cross-Domain Few-Shot Semantic Segmentation", ECCV 2022; PATNet).
"""

import csv
from pathlib import Path

from fsslib.data.decode import DataError, refuse
from fsslib.data.masks import MaskedImages, files_in, paired
from fsslib.data.names import class_id, named
from fsslib.paths import data_root

LESIONS = {name: class_id(name) for name in ("nevus", "melanoma", "seborrheic keratosis")}
"""Global ids of the three kinds of lesion in ISIC 2018."""

SORTED = {
    "ifa": ("nevus", "seborrheic keratosis", "melanoma"),
    "gf_sam": ("nevus", "melanoma", "seborrheic keratosis"),
}
"""What lies in the folders 1, 2 and 3, by the published code that sorted the images. The class mean is the same."""

CHEST_PARTS = {"all": "", "shenzhen": "CHNCXR_", "montgomery": "MCUCXR_"}
"""How the names of the X-rays of a part begin."""

A_MELANOMA = "ISIC_0000004"
"""An image whose class tells the two ways of sorting apart."""

HOW_TO_GET_ISIC = """To get it, register at challenge.isic-archive.com/data, download the training data and ground truth
of 2018's task 1, and unpack both into {folder}. The class of each image is listed in data/isic/class_id.csv of
github.com/slei109/PATNet: copy it to {folder}/class_id.csv. Set FSSLIB_DATA to the folder that holds ISIC.
The toy world (data "toy") needs no download."""

HOW_TO_GET_CHEST = """To get it, download kaggle.com/datasets/nikhilpandey360/chest-xray-masks-and-labels (with an
account there) and move its folder "Lung Segmentation" to {folder}, so that {folder}/CXR_png is there.
Set FSSLIB_DATA to the folder that holds LungSegmentation. The toy world (data "toy") needs no download."""

HOW_TO_GET_KVASIR = """To get it, unpack kvasir-seg.zip of datasets.simula.no/kvasir-seg, so that {folder}/images is
there. Set FSSLIB_DATA to the folder that holds Kvasir-SEG. The toy world (data "toy") needs no download."""


class Isic(MaskedImages):
    """Skin lesions of three kinds (ISIC 2018, task 1); an image's id is "ISIC_0000000", its domain "isic".

    `root` holds the folder ISIC (default: `data_root()`). The kind of an image is what class_id.csv says, wherever the
    image lies. Without that file it is its folder, 1, 2 or 3, numbered as `sorted_by` says. Masks are read from their
    one folder only: a released script sorts copies of the photographs, named as masks, into its folders 1 to 3.

    Raises ValueError for an unknown `sorted_by`, DataError for missing folders, an image without a class, without its
    mask or the reverse, for images sorted otherwise than `sorted_by` says, and as `MaskedImages`.
    """

    def __init__(
        self,
        root: Path | str | None = None,
        *,
        size: int = 256,
        sorted_by: str = "ifa",
        keep_originals: bool = False,
    ):
        folder = (data_root() if root is None else Path(root)) / "ISIC"
        images, kinds = find_lesions(folder, sorted_by)
        masks = files_in(folder / "ISIC2018_Task1_Training_GroundTruth", ".png", HOW_TO_GET_ISIC.format(folder=folder))
        pairs = paired(images, {name.removesuffix("_segmentation"): path for name, path in masks.items()}, folder)
        super().__init__(
            {name: (*pair, LESIONS[kinds[name]]) for name, pair in pairs.items()},
            named(LESIONS.values()),
            name="isic",
            domain="isic",
            size=size,
            keep_originals=keep_originals,
        )


def find_lesions(folder: Path, sorted_by: str) -> tuple[dict[str, Path], dict[str, str]]:
    """The images of ISIC and their kinds, by id. Raises DataError with the next step when a kind is not known."""
    if sorted_by not in SORTED:
        raise ValueError(f"The images are sorted by one of {', '.join(SORTED)}; asked for {sorted_by!r}.")
    how_to_get = HOW_TO_GET_ISIC.format(folder=folder)
    inputs, table = folder / "ISIC2018_Task1-2_Training_Input", folder / "class_id.csv"
    images, kinds = {}, {}
    for number, kind in zip("123", SORTED[sorted_by]):
        if (inputs / number).is_dir():
            found = files_in(inputs / number, ".jpg", how_to_get)
            images |= found
            kinds |= dict.fromkeys(found, kind)
    if table.is_file() or not images:
        images = files_in(inputs, ".jpg", how_to_get) | images
        kinds = read_kinds(table) if table.is_file() else {}
    elif kinds.get(A_MELANOMA, "melanoma") != "melanoma":
        other = next(way for way in SORTED if way != sorted_by)
        raise DataError(
            f"{images[A_MELANOMA]} is a melanoma, and in another folder when sorted by {sorted_by!r}: pass "
            f"sorted_by={other!r}."
        )
    unknown = sorted(images.keys() - kinds.keys())
    refuse(
        {i: f"The class of {images[i]} is not known: {table} does not list it, nor is it sorted." for i in unknown},
        "\n" + how_to_get,
    )
    return {i: path for i, path in images.items() if i in kinds}, kinds


def read_kinds(path: Path) -> dict[str, str]:
    """The kind of each image by its id, from class_id.csv: "ISIC_0000000,nevus". Raises DataError naming a bad line."""
    kinds = {}
    try:
        rows = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines(), skipinitialspace=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is no table in UTF-8 ({error}). Copy the published file again.") from error
    for number, row in enumerate(rows, start=1):
        kind = row[1].strip().replace("_", " ") if len(row) == 2 else ""
        if kind in LESIONS:
            kinds[row[0].strip()] = kind
        elif row and row != ["ID", "Class"]:
            raise DataError(
                f"{path}, line {number}: {','.join(row)!r} is not an image and one of {', '.join(LESIONS)}. Copy the "
                "published file again."
            )
    return kinds


class ChestXray(MaskedImages):
    """Lungs in chest X-rays from Montgomery and Shenzhen; an image's id is "CHNCXR_0001_0", its domain "chest_xray".

    `root` holds the folder LungSegmentation (default: `data_root()`). Of the 800 images 704 have a mask, and only those
    count. Of these 566 are the `part` "shenzhen", which the loaders of CD-FSS (PATNet, IFA) read: they cut nine
    characters off a mask's name, and the 138 masks from Montgomery have no "_mask" to lose. Published numbers are of
    the 566, ABCDFSS's of all. The two do not compare, so the names of the sets differ: "chest_xray_shenzhen".

    Raises ValueError for an unknown part, DataError for missing folders, a mask without its image, and as
    `MaskedImages`.
    """

    def __init__(
        self, root: Path | str | None = None, *, part: str = "all", size: int = 256, keep_originals: bool = False
    ):
        if part not in CHEST_PARTS:
            raise ValueError(f"The parts of the chest X-rays are {', '.join(CHEST_PARTS)}; asked for {part!r}.")
        folder = (data_root() if root is None else Path(root)) / "LungSegmentation"
        images, masks = (
            files_in(folder / kind, ".png", HOW_TO_GET_CHEST.format(folder=folder)) for kind in ("CXR_png", "masks")
        )
        begins = CHEST_PARTS[part]
        masks = {name.removesuffix("_mask"): path for name, path in masks.items() if name.startswith(begins)}
        lung = class_id("lung")
        super().__init__(
            {name: (*pair, lung) for name, pair in paired(images, masks, folder, all_masked=False).items()},
            named([lung]),
            name="chest_xray" if part == "all" else f"chest_xray_{part}",
            domain="chest_xray",
            size=size,
            keep_originals=keep_originals,
        )


class Kvasir(MaskedImages):
    """Polyps seen through an endoscope (Jha et al., "Kvasir-SEG", 2020), with masks stored as JPEG; domain "kvasir".

    `root` holds the folder Kvasir-SEG (default: `data_root()`); an image's id is the name of its file.

    Raises DataError for missing folders, an image without its mask or the reverse, and as `MaskedImages`.
    """

    def __init__(self, root: Path | str | None = None, *, size: int = 256, keep_originals: bool = False):
        folder = (data_root() if root is None else Path(root)) / "Kvasir-SEG"
        images, masks = (
            files_in(folder / part, ".jpg", HOW_TO_GET_KVASIR.format(folder=folder)) for part in ("images", "masks")
        )
        polyp = class_id("polyp")
        super().__init__(
            {name: (*pair, polyp) for name, pair in paired(images, masks, folder).items()},
            named([polyp]),
            name="kvasir",
            domain="kvasir",
            size=size,
            keep_originals=keep_originals,
        )

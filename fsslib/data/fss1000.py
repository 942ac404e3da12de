"""FSS-1000, photographs of a thousand classes, ten each (Li et al., "FSS-1000: A 1000-Class Dataset for Few-Shot
Segmentation", CVPR 2020).

Expected below the data folder, the archive's folder fewshot_data renamed:

    FSS-1000/african_elephant/1.jpg      a photograph, 224 x 224 pixels but for a few
    FSS-1000/african_elephant/1.png      its mask, in grey, RGB or RGBA
"""

from functools import cache
from pathlib import Path

from fsslib.data.decode import DataError
from fsslib.data.masks import MaskedImages, files_in, paired
from fsslib.data.names import ALIASES, CLASS_IDS, CLASS_NAMES
from fsslib.paths import data_root, shipped

PARTS = {"trn": 520, "val": 240, "test": 240}
"""Classes of each part. The test classes are those of the release; it parts the other 760 at random, here as HSNet."""

FIRST_ID = 2001
"""Global id of the first of the thousand classes in alphabetical order, if no other data set has it."""

OWN_MEANING = ("mouse",)
"""Names that mean another thing than elsewhere: the computer's mouse is "computer_mouse", so this is the animal."""

LEFT_OUT = ("bamboo_slip/7", "peregine_falcon/8")
"""Images of the release whose mask is none, as its users report (issues 8, 17 and 25 there) and code built on it leaves
out: one is not black and white, one is a photograph of 960 x 480 pixels. Both are of test classes, which have 2,398."""

HOW_TO_GET = """To get it, follow the link at github.com/HKUSTCV/FSS-1000, unpack it and move its folder of a
thousand folders here, so that {folder}/abacus/1.jpg is there. Set FSSLIB_DATA to the folder that holds FSS-1000.
The toy world (data "toy") needs no download."""


class Fss1000(MaskedImages):
    """The images of a part, "trn", "val" or "test", or of all; an image's id is "african_elephant/1".

    The domain is "fss_1000". `root` holds the folder FSS-1000 (default: `data_root()`). A class is a folder that the
    published lists name, and an image a pair of files named by a number; the stray files of the release (1.jpeg,
    Thumbs.db) are left alone, and so are the two pairs LEFT_OUT and folders of other names (eiffel_tower, the example
    beside the release's code). A class that is not there is not missed: `class_names` has those that are.

    Raises ValueError for an unknown part, DataError when no class of it is there, for an image without its mask or the
    reverse, and as `MaskedImages`.
    """

    def __init__(
        self,
        root: Path | str | None = None,
        *,
        part: str | None = None,
        size: int = 256,
        keep_originals: bool = False,
    ):
        folder = (data_root() if root is None else Path(root)) / "FSS-1000"
        how_to_get = HOW_TO_GET.format(folder=folder)
        classes = {name: c for name, c in class_ids(part).items() if (folder / name).is_dir()}
        if not classes:
            raise DataError(f"{folder} has no folder of a class of FSS-1000, part {part or 'any'}.\n{how_to_get}")
        files = {}
        for name, c in classes.items():
            images, masks = (
                {
                    number: path
                    for number, path in files_in(folder / name, suffix, how_to_get).items()
                    if number.isdigit()
                }
                for suffix in (".jpg", ".png")
            )
            pairs = {f"{name}/{number}": pair for number, pair in paired(images, masks, folder / name).items()}
            files |= {image_id: (*pair, c) for image_id, pair in pairs.items() if image_id not in LEFT_OUT}
        super().__init__(
            files,
            {c: class_name(name) for name, c in sorted(classes.items(), key=lambda item: item[1])},
            name="fss_1000",
            domain="fss_1000",
            size=size,
            keep_originals=keep_originals,
        )


@cache
def class_list(part: str | None = None) -> tuple[str, ...]:
    """The class names of a part, or of all three, as the folders are called, in alphabetical order.

    Raises ValueError for an unknown part.
    """
    if part not in (None, *PARTS):
        raise ValueError(f"FSS-1000 has the parts {', '.join(PARTS)}; asked for {part!r}.")
    parts = PARTS if part is None else (part,)
    lists = [shipped("data") / "splits" / "fss_1000" / f"{one}.txt" for one in parts]
    return tuple(sorted(name for path in lists for name in path.read_text(encoding="utf-8").split()))


def class_ids(part: str | None = None) -> dict[str, int]:
    """The global ids of a part's classes, by the names of their folders.

    A class that another data set has too, by this or another name (`fsslib.data.names`), has its id there. The others
    are numbered by their place among all thousand, so that no id depends on the part or on which classes are shared.
    """
    numbers = {name: FIRST_ID + place for place, name in enumerate(class_list())}
    return {name: CLASS_IDS.get(_shared_name(name), numbers[name]) for name in class_list(part)}


def class_name(folder: str) -> str:
    """A class's name over all data sets: "fire_hydrant" is "fire hydrant", "diver" is "person"."""
    shared = _shared_name(folder)
    return CLASS_NAMES[CLASS_IDS[shared]] if shared in CLASS_IDS else shared


def _shared_name(folder: str) -> str:
    spaced = folder.replace("_", " ")
    return f"{spaced} (FSS-1000)" if folder in OWN_MEANING else ALIASES.get(spaced, spaced)

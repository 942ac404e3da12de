"""Data sets, and the task a run poses on one: what is learnt from, and what is tested in which domains.

What can be asked for is told without torch, whose import takes seconds; `openers` does what is asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fsslib.data.images import LabelledImageSet
    from fsslib.data.tasks import AdaptationTask, FewShotTask


@dataclass(frozen=True)
class DataSet:
    """What a run may ask of a data set: its folds, the domains to learn from and to test in, those tested unasked.

    One that `adapts` has a fixed list of classes and takes exactly one target; the others pose episodes.
    """

    about: str
    sources: tuple[str, ...] = ("photo",)
    targets: tuple[str, ...] = ()
    default_targets: tuple[str, ...] = ()
    folds: tuple[int, ...] = (0,)
    trainable: bool = True
    adapts: bool = False


def open_task(
    data: str = "toy",
    *,
    fold: int = 0,
    source: str = "photo",
    targets: Sequence[str] = (),
    size: int = 64,
    novel_as_background: bool = False,
    device: Any = "cpu",
) -> "FewShotTask | AdaptationTask":
    """The task of a data set. `size` is the side of its square images or, for streets, their height; `device` is where
    the toy worlds draw.

    - "toy": `source` and `targets` are domains of the toy world; the classes of `fold` are held out.
    - "pascal": PASCAL-5i below FSSLIB_DATA, the one domain "photo". "pascal_all" tests every class and trains on none.
    - "untrained": the real data set `source` alone, every class with FEWEST_IMAGES tested and none trained on.
    - "coco": COCO-20i's interleaved folds; the target "pascal" is COCO to PASCAL as RePRI has it.
    - "photos": PASCAL and COCO together, classes merged by name, the classes of PASCAL's `fold` held out; the targets
      "magnetic_tile", "camvid" and "suim" show other things and are asked for classes of their own.
    - "streets": the toy streets, from the look "game" to "cities", or to "meadow", the city for development.
    - "cityscapes": "gta5" or "synthia" to Cityscapes, K labelled images of every city, tested on the val split.
    - "camvid": CamVid from "day" to "dusk". "streets_camvid": the toy streets' "game" to CamVid's "day".

    Training images that hold a held-out class as background are dropped (toy: not drawn) unless `novel_as_background`
    on the toy world, the papers' way. Raises ValueError naming what there is for an unknown data set, fold or domain,
    and when classes leak.
    """
    if data not in DATA_SETS:
        raise ValueError(f"Unknown data set {data!r}; there are {', '.join(DATA_SETS)}.")
    facts = DATA_SETS[data]
    for domain, known in ((source, facts.sources), *((target, facts.targets) for target in targets)):
        if domain not in known:
            there = ", ".join(known) or "none but its source"
            raise ValueError(f"Unknown domain {domain!r} of {data}; there are {there}.")
    more = {"novel_as_background": novel_as_background} if data == "toy" else {}
    opener = getattr(import_module("fsslib.data.openers"), data)
    return opener(fold=fold, source=source, targets=tuple(targets), size=size, device=device, **more)


FEWEST_IMAGES = 5
"""Images that must show a class for it to be asked for where nothing is trained."""

READERS = {
    "pascal": "pascal:PascalVOC",
    "coco": "coco:Coco",
    "camvid": "camvid:CamVid",
    "magnetic_tile": "magnetic_tile:MagneticTile",
    "suim": "suim:Suim",
    "fss1000": "fss1000:Fss1000",
    "deepglobe": "deepglobe:DeepGlobe",
    "isic": "medical:Isic",
    "chest_xray": "medical:ChestXray",
    "kvasir": "medical:Kvasir",
}
"""The reader of each real set of episodes, by module and class below fsslib.data."""


def open_images(name: str, **options) -> "LabelledImageSet":
    """A real data set as an episode source: the reader with this name, with its options such as `size`."""
    module, reader = READERS[name].split(":")
    return getattr(import_module(f"fsslib.data.{module}"), reader)(**options)


_TOY_DOMAINS = ("photo", "underwater", "night", "sketch")

DATA_SETS = {
    "toy": DataSet(
        "drawn by the program, nothing to download",
        sources=(*_TOY_DOMAINS, "fog"),
        targets=(*_TOY_DOMAINS, "fog"),
        default_targets=_TOY_DOMAINS[1:],
        folds=(0, 1, 2, 3, 4),
    ),
    "pascal": DataSet("PASCAL VOC 2012 with PASCAL-5i folds", folds=(0, 1, 2, 3)),
    "pascal_all": DataSet(
        "PASCAL VOC 2012, every class tested and none trained on: for untrained networks",
        trainable=False,
    ),
    "untrained": DataSet(
        "one real data set, its classes tested and none trained on: for untrained networks",
        sources=tuple(READERS),
        trainable=False,
    ),
    "coco": DataSet(
        "COCO with COCO-20i folds, interleaved; the target pascal is asked for VOC's classes that the fold leaves new",
        targets=("pascal",),
        default_targets=("pascal",),
        folds=(0, 1, 2, 3),
    ),
    "photos": DataSet(
        "PASCAL VOC 2012 and COCO together; targets are defects on metal, streets, and life under water",
        # "suim" only when asked for: the 8 images the project was tried on make a picture and not a score.
        targets=("magnetic_tile", "camvid", "suim"),
        default_targets=("magnetic_tile", "camvid"),
        folds=(0, 1, 2, 3),
    ),
    "streets": DataSet(
        "the toy world's streets, drawn by the program: from a clean game to towns",
        sources=("game",),
        targets=("cities", "meadow"),
        default_targets=("cities",),
        adapts=True,
    ),
    "camvid": DataSet(
        "CamVid, filmed from a car: from drives by day to one at dusk",
        sources=("day",),
        targets=("dusk", "dusk_all"),
        default_targets=("dusk",),
        adapts=True,
    ),
    "streets_camvid": DataSet(
        "from the toy streets' game to CamVid by day, with CamVid's classes",
        sources=("game",),
        targets=("day",),
        default_targets=("day",),
        adapts=True,
    ),
    "cityscapes": DataSet(
        "from computed streets, GTA5 or SYNTHIA, to Cityscapes; cityscapes_one_shot has PixDA's own image of each city",
        sources=("gta5", "synthia"),
        targets=("cityscapes", "cityscapes_one_shot"),
        default_targets=("cityscapes",),
        adapts=True,
    ),
}

"""Data sets, and the task a run poses on one: what is learnt from, and what is tested in which domains.

What can be asked for is told without torch, whose import takes seconds; `openers` and `worlds` do what is asked.
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

    One that `adapts` has a fixed list of classes and takes exactly one target; the others pose episodes. `has_parts`:
    its images are files that can be cut into disjoint parts.
    """

    about: str
    sources: tuple[str, ...] = ("photo",)
    targets: tuple[str, ...] = ()
    default_targets: tuple[str, ...] = ()
    folds: tuple[int, ...] = (0,)
    trainable: bool = True
    adapts: bool = False
    has_parts: bool = False
    opener: str = "openers"


def open_task(
    data: str = "toy",
    *,
    fold: int = 0,
    source: str = "photo",
    targets: Sequence[str] = (),
    size: int = 64,
    novel_as_background: bool = False,
    draw: int = 0,
    source_parts: int = 1,
    target_parts: int = 1,
    device: Any = "cpu",
) -> "FewShotTask | AdaptationTask":
    """The task of a data set. `size` is the side of its square images or, for streets, their height; `device` is where
    the toy worlds draw.

    - "toy": `source` and `targets` are domains of the toy world; the classes of `fold` are held out. In "toy_splits"
      `fold` is a split, whose tested classes no other split tests.
    - "pascal", "coco", "photos" (both, classes merged by name): the classes of a fold of PASCAL-5i, COCO-20i
      (interleaved) or PASCAL-5i are held out and tested in "photo". Any other data set of EPISODES may be a target, and
      is asked for the classes that training has not seen: the target "pascal" is COCO to PASCAL as RePRI has it.
    - "cdfss": all classes of PASCAL are trained on, and only targets are tested.
    - "untrained": the real data set `source` alone, every class with FEWEST_IMAGES tested and none trained on;
      "pascal_all" so with PASCAL and more images a class.
    - "streets": the toy streets, from the look "game" to "cities", or to "meadow", the city for development. In
      "streets_spoilt" every tenth image of the game is bad: what a selection of images should find.
    - "cityscapes": "gta5" or "synthia" to Cityscapes, K labelled images of every city, tested on the val split.
    - "camvid": CamVid from "day" to "dusk". "streets_camvid": the toy streets' "game" to CamVid's "day".

    Where the images are files, `source_parts` cuts those of the source, training and test, into so many disjoint parts,
    and `target_parts` those of each target; the task has the parts with the number `draw`, or its rest.

    Training images that hold a held-out class as background are dropped (toy: not drawn) unless `novel_as_background`
    on the toy world, the papers' way. Raises ValueError naming what there is for an unknown data set, fold or domain,
    and when classes leak.
    """
    if data not in DATA_SETS:
        raise ValueError(f"Unknown data set {data!r}; there are {', '.join(DATA_SETS)}.")
    facts = DATA_SETS[data]
    for domain, known in ((source, facts.sources), *((target, facts.targets) for target in targets)):
        if SPELLINGS.get(domain, domain) not in known:
            there = ", ".join(known) or "none but its source"
            raise ValueError(f"Unknown domain {domain!r} of {data}; there are {there}.")
    more = {"novel_as_background": novel_as_background} if data == "toy" else {}
    if facts.has_parts:
        more = {"draw": draw, "source_parts": source_parts, "target_parts": target_parts}
    module, _, name = facts.opener.partition(":")
    opener = getattr(import_module(f"fsslib.data.{module}"), name or data)
    return opener(data=data, fold=fold, source=source, targets=tuple(targets), size=size, device=device, **more)


def open_images(name: str, **options: Any) -> "LabelledImageSet":
    """A real data set by its name; see `fsslib.data.sets.open_images`."""
    return import_module("fsslib.data.sets").open_images(name, **options)


FEWEST_IMAGES = 5
"""Images that must show a class for it to be asked for where nothing is trained."""

SPELLINGS = {"fss1000": "fss_1000"}
"""Names of earlier versions: commands and files of results may hold them."""

EPISODES = (
    "pascal",
    "coco",
    "camvid",
    "magnetic_tile",
    "suim",
    "fss_1000",
    "deepglobe",
    "isic",
    "chest_xray",
    "kvasir",
)
"""The real data sets that pose episodes (`fsslib.data.sets.LAYOUTS` has them all); each can be any run's target."""

_TOY_DOMAINS = ("photo", "underwater", "night", "sketch")

DATA_SETS = {
    "toy": DataSet(
        "drawn by the program, nothing to download",
        sources=(*_TOY_DOMAINS, "fog"),
        targets=(*_TOY_DOMAINS, "fog"),
        default_targets=_TOY_DOMAINS[1:],
        folds=(0, 1, 2, 3, 4),
        opener="worlds",
    ),
    "toy_splits": DataSet(
        "the toy world in twelve splits, each with tested classes of its own: for verdicts",
        sources=(*_TOY_DOMAINS, "fog"),
        targets=(*_TOY_DOMAINS, "fog"),
        default_targets=_TOY_DOMAINS[1:],
        folds=tuple(range(12)),
        opener="worlds",
    ),
    "pascal": DataSet(
        "PASCAL VOC 2012 with PASCAL-5i folds, and any other data set as a target",
        targets=tuple(name for name in EPISODES if name != "pascal"),
        folds=(0, 1, 2, 3),
        opener="openers:few_shot",
        has_parts=True,
    ),
    "cdfss": DataSet(
        "all of PASCAL VOC 2012 to learn from, other data sets to test in: the benchmark CD-FSS",
        targets=tuple(name for name in EPISODES if name != "pascal"),
        default_targets=("deepglobe", "isic", "chest_xray", "fss_1000"),
        opener="openers:few_shot",
        has_parts=True,
    ),
    "pascal_all": DataSet(
        "PASCAL VOC 2012, every class tested and none trained on: for untrained networks",
        trainable=False,
        opener="openers:untrained",
    ),
    "untrained": DataSet(
        "one real data set, its classes tested and none trained on: for untrained networks",
        sources=EPISODES,
        trainable=False,
    ),
    "coco": DataSet(
        "COCO with COCO-20i folds, interleaved, and any other data set as a target; of pascal the classes that are new",
        targets=tuple(name for name in EPISODES if name != "coco"),
        default_targets=("pascal",),
        folds=(0, 1, 2, 3),
        opener="openers:few_shot",
        has_parts=True,
    ),
    "photos": DataSet(
        "PASCAL VOC 2012 and COCO together, and any other data set as a target",
        targets=tuple(name for name in EPISODES if name not in ("pascal", "coco")),
        default_targets=("magnetic_tile", "camvid"),
        folds=(0, 1, 2, 3),
        opener="openers:few_shot",
        has_parts=True,
    ),
    "streets": DataSet(
        "the toy world's streets, drawn by the program: from a clean game to towns",
        sources=("game",),
        targets=("cities", "meadow"),
        default_targets=("cities",),
        adapts=True,
        opener="worlds",
    ),
    "streets_spoilt": DataSet(
        "the toy streets, every tenth image of the game turned upside down without its labels: a control",
        sources=("game",),
        targets=("cities", "meadow"),
        default_targets=("cities",),
        adapts=True,
        opener="worlds:streets",
    ),
    "camvid": DataSet(
        "CamVid, filmed from a car: from drives by day to one at dusk",
        sources=("day",),
        targets=("dusk", "dusk_all"),
        default_targets=("dusk",),
        adapts=True,
        has_parts=True,
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
        sources=("gta5", "synthia", "synthia_lanes"),
        targets=("cityscapes", "cityscapes_one_shot"),
        default_targets=("cityscapes",),
        adapts=True,
    ),
}

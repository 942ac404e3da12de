"""Data sets, and the task a run poses on one: what is learnt from, and what is tested in which domains."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from fsslib.data.sampling import group_ids, in_turn
from fsslib.data.streams import ImageSet, Relabelled
from fsslib.data.tasks import AdaptationTask, FewShotTask
from fsslib.data.toyworld.classes import DEVELOPMENT_FOLD, TEST_FOLDS
from fsslib.data.toyworld.domains import DOMAINS, TARGET_DOMAINS

if TYPE_CHECKING:
    from fsslib.data.images import LabelledImageSet

DEFECT_SIZE = 320
"""Side at which the defects of MagneticTile are tested, whatever the training's: they are small."""


@dataclass(frozen=True)
class DataSet:
    """What a run may ask of a data set: its folds, the domains to learn from and to test in, those tested unasked.

    One that `adapts` has a fixed list of classes and takes exactly one target; the others pose episodes.
    """

    about: str
    open: Callable[..., FewShotTask | AdaptationTask]
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
) -> FewShotTask | AdaptationTask:
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
    return facts.open(fold=fold, source=source, targets=tuple(targets), size=size, device=device, **more)


def _toy(*, fold, source, targets, size, device, novel_as_background=False) -> FewShotTask:
    from fsslib.data.toyworld import ToyWorld, base_classes, fold_classes

    base, novel = base_classes(fold), fold_classes(fold)

    def world(domain, distractors):
        return ToyWorld(domain, size=size, distractors=distractors, device=device)

    train = world(source, (*base, *novel) if novel_as_background else base)
    tests = {domain: world(domain, base) for domain in dict.fromkeys((source, *targets))}
    return FewShotTask(train, base, tests, novel, novel_as_background=novel_as_background)


IN_MEMORY = 2**26
"""Bytes of decoded images up to which a data set is kept in memory alone and not in a cache on disk as well."""


def _cached(images):
    """A real data set over its cache on disk, so that no run decodes it again; a small one as it is."""
    height, width = images.size if isinstance(images.size, tuple) else (images.size, images.size)
    return images if len(images) * 4 * height * width <= IN_MEMORY else images.cached()


def _pascal(*, fold, size, **_) -> FewShotTask:
    from fsslib.data.pascal import PascalVOC

    part = _cached(PascalVOC(size=size)).fold(fold)
    benchmarks = {"photo": ("pascal", fold)}
    return FewShotTask(part.train, part.train_classes, {"photo": part.test}, part.test_classes, benchmarks=benchmarks)


def _pascal_all(*, size, **_) -> FewShotTask:
    from fsslib.data.pascal import PascalVOC

    voc = _cached(PascalVOC(size=size))
    return FewShotTask(voc, (), {"photo": voc}, voc.usable_classes())


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


BENCHMARK_PARTS = {"chest_xray": {"part": "shenzhen"}}
"""What of a data set the published numbers are of, where it is not all; for its reader."""


def _untrained(*, source, size, **_) -> FewShotTask:
    images = _cached(open_images(source, size=size, **BENCHMARK_PARTS.get(source, {})))
    asked = images.usable_classes(minimum_images=FEWEST_IMAGES)
    return FewShotTask(images, (), {source: images}, asked)


def _coco(*, fold, targets, size, **_) -> FewShotTask:
    from fsslib.data.coco import Coco
    from fsslib.data.images import DataError
    from fsslib.data.pascal import PascalVOC
    from fsslib.data.splits import coco_fold, coco_to_pascal

    coco, novel = _cached(Coco(size=size)), coco_fold(fold)
    train = coco.without_classes(novel)
    tests, asked = {"photo": coco.restricted(coco.contents.keys() - train.contents.keys())}, {}
    if "pascal" in targets:
        tests["pascal"] = voc = _cached(PascalVOC(size=size))
        asked["pascal"] = voc.usable_classes(coco_to_pascal(fold), minimum_images=FEWEST_IMAGES)
    learnt = train.usable_classes(set(coco.class_names) - set(novel), minimum_images=6)
    tested = tests["photo"].usable_classes(novel, minimum_images=FEWEST_IMAGES)
    if not learnt or not tested:
        raise DataError(
            f"Fold {fold} of COCO-20i leaves {len(learnt)} classes to train on and {len(tested)} to test in these "
            f"{len(coco)} images: a class needs 6 images to be trained on, {FEWEST_IMAGES} to be tested. Add images."
        )
    return FewShotTask(train, learnt, tests, tested, asked)


def _photos(*, fold, targets, size, **_) -> FewShotTask:
    from fsslib.data.camvid import CamVid
    from fsslib.data.coco import Coco
    from fsslib.data.images import DataError
    from fsslib.data.joined import joined
    from fsslib.data.magnetic_tile import MagneticTile
    from fsslib.data.names import class_id
    from fsslib.data.pascal import FOLDS, PascalVOC
    from fsslib.data.suim import Suim

    part = _cached(PascalVOC(size=size)).fold(fold)
    coco = _cached(Coco(size=size)).without_classes(FOLDS[fold])
    train = joined((part.train, coco), name="photos", domain="photo")
    tests, asked = {"photo": part.test}, {}
    if "magnetic_tile" in targets:
        # Blowholes and cracks cover 0.4 % of an image in the median, less than a cell of a grid at stride 16.
        tests["magnetic_tile"] = _cached(MagneticTile(size=DEFECT_SIZE))
        asked["magnetic_tile"] = tuple(class_id(name) for name in ("break", "fray", "uneven"))
    if "camvid" in targets:
        tests["camvid"] = _cached(CamVid(size=size))
        names = ("sky", "road", "pavement", "tree", "building", "fence")
        asked["camvid"] = tuple(class_id(name) for name in names)
    learnt = train.usable_classes(minimum_images=6)
    if "suim" in targets:
        # Divers are people: asked for only where people are held out.
        tests["suim"] = suim = _cached(Suim(size=size))
        asked["suim"] = tuple(c for c in suim.usable_classes(minimum_images=2) if c not in learnt)
        if not asked["suim"]:
            raise DataError(
                f"No class of SUIM that is not trained on has the 2 images that one shot needs; these {len(suim)} show "
                f"{suim.describe(suim.class_names)}. Add images, or leave the target out."
            )
    return FewShotTask(train, learnt, tests, part.test_classes, asked)


TEST_STREETS = 200
"""Test images of the toy streets: of the game, and of the cities together."""

HELD_OUT_STREETS = 50


def _streets(*, targets, size, device, **_) -> AdaptationTask:
    from fsslib.data.toyworld.streets import DEVELOPMENT_CITY, Streets, city_of

    game = Streets("game", size=size, device=device)
    (target,) = targets or ("cities",)
    towns = Streets("real", DEVELOPMENT_CITY if target == DEVELOPMENT_CITY else "all", size=size, device=device)
    seen = game.test_ids(TEST_STREETS + HELD_OUT_STREETS)
    asked = in_turn(towns.test_ids(TEST_STREETS // len(towns.domains)), city_of)
    tests = {"game": ImageSet(game, seen[:TEST_STREETS]), target: ImageSet(towns, asked)}
    return AdaptationTask(
        game, game.ids, towns, group_ids(towns.ids, city_of), tests, ImageSet(game, seen[TEST_STREETS:])
    )


def _camvid(*, targets, size, **_) -> AdaptationTask:
    from fsslib.data.camvid import camvid_subsets, sequence_of

    part = camvid_subsets(size=(size, round(size * 4 / 3)))
    (target,) = targets or ("dusk",)
    pool = part["dusk_train_all" if target == "dusk_all" else "dusk_train"]
    tests = {"day": ImageSet(part["day_test"], part["day_test"].ids)}
    tests[target] = ImageSet(part["dusk_test"], part["dusk_test"].ids)
    groups = group_ids(pool.ids, sequence_of)
    held_out = ImageSet(part["day_val"], part["day_val"].ids)
    return AdaptationTask(part["day_train"], part["day_train"].ids, pool, groups, tests, held_out)


def _streets_camvid(*, size, device, **_) -> AdaptationTask:
    from fsslib.data.camvid import camvid_subsets, sequence_of
    from fsslib.data.toyworld.streets import TO_CAMVID, Streets

    part = camvid_subsets(size=(size, round(size * 4 / 3)))
    streets = Streets("game", size=size, device=device)
    game = Relabelled(streets, TO_CAMVID, part["day_train"].class_names)
    seen = streets.test_ids(TEST_STREETS + HELD_OUT_STREETS)
    tests = {"game": ImageSet(game, seen[:TEST_STREETS]), "day": ImageSet(part["day_test"], part["day_test"].ids)}
    groups = group_ids(part["day_train"].ids, sequence_of)
    return AdaptationTask(game, game.ids, part["day_train"], groups, tests, ImageSet(game, seen[TEST_STREETS:]))


def _cityscapes(*, source, targets, size, **_) -> AdaptationTask:
    from fsslib.data import cityscapes
    from fsslib.data.gta5 import gta5
    from fsslib.data.synthia import synthia

    shape = (size, 2 * size)
    computed = _cached({"gta5": gta5, "synthia": synthia}[source](size=shape))
    train, val = (_cached(cityscapes.cityscapes(split=split, size=shape)) for split in ("train", "val"))
    (target,) = targets or ("cityscapes",)
    pool = train.restricted(cityscapes.PIXDA_ONE_SHOT) if target == "cityscapes_one_shot" else train
    ids, held_out = _last(computed.ids, HELD_OUT_STREETS)
    ids, tested = _last(ids, TEST_STREETS)
    tests = {source: ImageSet(computed, tested), target: ImageSet(val, val.ids)}
    groups = group_ids(pool.ids, cityscapes.city_of)
    return AdaptationTask(computed, ids, pool, groups, tests, ImageSet(computed, held_out))


def _last(ids: tuple[str, ...], count: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """All but the last `count` ids, and these; of few ids a fifth."""
    count = min(count, max(1, len(ids) // 5))
    return ids[:-count], ids[-count:]


DATA_SETS = {
    "toy": DataSet(
        "drawn by the program, nothing to download",
        _toy,
        sources=tuple(DOMAINS),
        targets=tuple(DOMAINS),
        default_targets=TARGET_DOMAINS,
        folds=(*TEST_FOLDS, DEVELOPMENT_FOLD),
    ),
    "pascal": DataSet("PASCAL VOC 2012 with PASCAL-5i folds", _pascal, folds=(0, 1, 2, 3)),
    "pascal_all": DataSet(
        "PASCAL VOC 2012, every class tested and none trained on: for untrained networks",
        _pascal_all,
        trainable=False,
    ),
    "untrained": DataSet(
        "one real data set, its classes tested and none trained on: for untrained networks",
        _untrained,
        sources=tuple(READERS),
        trainable=False,
    ),
    "coco": DataSet(
        "COCO with COCO-20i folds, interleaved; the target pascal is asked for VOC's classes that the fold leaves new",
        _coco,
        targets=("pascal",),
        default_targets=("pascal",),
        folds=(0, 1, 2, 3),
    ),
    "photos": DataSet(
        "PASCAL VOC 2012 and COCO together; targets are defects on metal, streets, and life under water",
        _photos,
        # "suim" only when asked for: the 8 images the project was tried on make a picture and not a score.
        targets=("magnetic_tile", "camvid", "suim"),
        default_targets=("magnetic_tile", "camvid"),
        folds=(0, 1, 2, 3),
    ),
    "streets": DataSet(
        "the toy world's streets, drawn by the program: from a clean game to towns",
        _streets,
        sources=("game",),
        targets=("cities", "meadow"),
        default_targets=("cities",),
        adapts=True,
    ),
    "camvid": DataSet(
        "CamVid, filmed from a car: from drives by day to one at dusk",
        _camvid,
        sources=("day",),
        targets=("dusk", "dusk_all"),
        default_targets=("dusk",),
        adapts=True,
    ),
    "streets_camvid": DataSet(
        "from the toy streets' game to CamVid by day, with CamVid's classes",
        _streets_camvid,
        sources=("game",),
        targets=("day",),
        default_targets=("day",),
        adapts=True,
    ),
    "cityscapes": DataSet(
        "from computed streets, GTA5 or SYNTHIA, to Cityscapes; cityscapes_one_shot has PixDA's own image of each city",
        _cityscapes,
        sources=("gta5", "synthia"),
        targets=("cityscapes", "cityscapes_one_shot"),
        default_targets=("cityscapes",),
        adapts=True,
    ),
}

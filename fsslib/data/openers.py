"""Opening the tasks of `fsslib.data.DATA_SETS` on real images."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

from fsslib.data import FEWEST_IMAGES, SPELLINGS
from fsslib.data.benchmarks import coco_fold, pascal_fold
from fsslib.data.images import LabelledImageSet
from fsslib.data.names import class_id
from fsslib.data.quirks import city_of_each, drive_of_each
from fsslib.data.sampling import group_ids
from fsslib.data.sets import PIXDA_ONE_SHOT, joined, open_images
from fsslib.data.streams import ImageSet, Relabelled
from fsslib.data.tasks import AdaptationTask, FewShotTask
from fsslib.data.worlds import HELD_OUT_STREETS, TEST_STREETS
from fsslib.files import DataError


@dataclass(frozen=True)
class Source:
    """What is trained on: data sets, and which of their classes a fold holds out.

    `tested` and `learnt` are the images that a held-out and a training class need; six are what five shots need.
    """

    sets: tuple[str, ...]
    held_out: Callable[[int], tuple[int, ...]] = lambda fold: ()
    benchmark: str | None = None
    tested: int = 20
    learnt: int = 6


SOURCES = {
    "pascal": Source(("pascal",), pascal_fold, benchmark="pascal"),
    "coco": Source(("coco",), coco_fold, tested=FEWEST_IMAGES),
    "photos": Source(("pascal", "coco"), pascal_fold),
    "cdfss": Source(("pascal",)),
}


@dataclass(frozen=True)
class Target:
    """What is asked of a data set as a target: `classes` by name, or all that `fewest` images or more show and that
    training is not for. `opens` and `part` are what published numbers are of; `size` is a side of its own."""

    opens: str | None = None
    part: str | None = None
    size: int | None = None
    classes: tuple[str, ...] = ()
    fewest: int = FEWEST_IMAGES


TARGETS = {
    # Blowholes and cracks cover 0.4 % of an image in the median, less than a cell of a grid at stride 16.
    "magnetic_tile": Target(size=320, classes=("break", "fray", "uneven")),
    "camvid": Target(classes=("sky", "road", "pavement", "tree", "building", "fence")),
    "suim": Target(fewest=2),
    "fss_1000": Target(part="test"),
    "chest_xray": Target(opens="chest_xray_shenzhen"),
}
"""The targets that are not simply all of their data set."""


IN_MEMORY = 2**26
"""Bytes of decoded images up to which a data set is kept in memory alone and not in a cache on disk as well."""


def _cached(images: LabelledImageSet) -> LabelledImageSet:
    """A real data set over its cache on disk, so that no run decodes it again; a small one as it is."""
    height, width = images.shape
    return images if len(images) * 4 * height * width <= IN_MEMORY else images.cached()


def few_shot(*, data, fold, targets, size, draw=0, source_parts=1, target_parts=1, **_) -> FewShotTask:
    """From photographs to the classes that a fold holds out, and to other data sets.

    Training drops every image that holds a pixel of a held-out class, as BAM does (HSNet and PFENet keep them, with the
    novel objects as background); the test in the source has exactly the dropped ones.
    """
    asked_of = SOURCES[data]
    if source_parts > 1:  # with fewer images of each class, but two at least: a support and a query
        fewer = {name: max(2, getattr(asked_of, name) // source_parts) for name in ("tested", "learnt")}
        asked_of = replace(asked_of, benchmark=None, **fewer)
    sets = [_cached(open_images(name, size=size)).part(draw, source_parts) for name in asked_of.sets]
    train, learnt, test, tested = _cut(asked_of, data, sets, fold)
    if not learnt or (test is not None and not tested):
        cuts = {other: _cut(asked_of, data, sets, other) for other in range(4)}
        fit = [other for other, (_, learns, _, tests) in cuts.items() if learns and tests]
        raise DataError(
            f"Fold {fold} of {sets[0].name} holds out {sets[0].describe(asked_of.held_out(fold))}, and a class needs "
            f"{asked_of.tested} images to be tested. {len(train)} of {sum(map(len, sets))} images are left to train "
            f"on, with {len(learnt)} classes that have {asked_of.learnt} of them. Folds that can be learnt and tested: "
            f"{', '.join(map(str, fit)) or 'none'}. Choose one of them, or add images."
        )
    tests, asked = {} if test is None else {"photo": test}, {}
    for target in targets:
        tests[target], asked[target] = _target(
            target, size, (draw, target_parts), {*train.class_names} - {*asked_of.held_out(fold)}
        )
    if not tests:
        raise DataError(f"{data} tests in other data sets alone, and none is named: give some as targets.")
    benchmarks = {"photo": (asked_of.benchmark, fold)} if asked_of.benchmark else {}
    return FewShotTask(train, learnt, tests, tested, asked, benchmarks=benchmarks)


def _cut(asked_of: Source, data: str, sets: list[LabelledImageSet], fold: int) -> tuple:
    """What is trained on with which classes, and what is tested with which (None: nothing), with a fold held out."""
    novel = asked_of.held_out(fold)
    parts = [images.without_classes(novel) for images in sets]
    train = parts[0] if len(parts) == 1 else joined(parts, name=data, domain="photo")
    learnt = train.usable_classes([c for c in train.class_names if c not in novel], minimum_images=asked_of.learnt)
    test = sets[0].restricted(set(sets[0].ids) - set(parts[0].ids)) if novel else None
    tested = () if test is None else test.usable_classes(novel, minimum_images=asked_of.tested)
    return train, learnt, test, tested


def _target(name: str, size: int, part: tuple[int, int], learnt: set[int]) -> tuple[LabelledImageSet, tuple[int, ...]]:
    """A target's images and the classes it is asked for: none that training is for, however rare it is there."""
    facts = TARGETS.get(SPELLINGS.get(name, name), Target())
    images = _cached(open_images(facts.opens or name, part=facts.part, size=facts.size or size)).part(*part)
    if facts.classes:
        return images, tuple(class_id(title) for title in facts.classes)
    asked = tuple(c for c in images.usable_classes(minimum_images=facts.fewest) if c not in learnt)
    if not asked:
        raise DataError(
            f"No class of {name} that training is not for has {facts.fewest} images; these {len(images)} show "
            f"{images.describe(images.class_names)}. Add images, or leave the target out."
        )
    return images, asked


def untrained(*, data, source, size, **_) -> FewShotTask:
    """Every class of one data set tested and none trained on."""
    name, fewest = ("pascal", 20) if data == "pascal_all" else (source, FEWEST_IMAGES)
    images = _cached(open_images(TARGETS.get(name, Target()).opens or name, size=size))
    asked = images.usable_classes(minimum_images=fewest)
    if not asked:
        raise DataError(
            f"No class of {name} has the {fewest} images that it is asked for with; these {len(images)} show "
            f"{images.describe(images.class_names)}. Add images."
        )
    return FewShotTask(images, (), {source: images}, asked)


CAMVID_PARTS = {
    "day_train": ("train", ("0006R0", "0016E5"), ""),
    "day_val": ("val", ("0016E5",), ""),
    "day_test": ("test", ("Seq05VD",), ""),
    "dusk_train": ("train", ("0001TP",), "0001TP_008220"),
    "dusk_train_all": ("train", ("0001TP",), ""),
    "dusk_test": ("test", ("0001TP",), ""),
}
"""CamVid for a shift from day to dusk: of a list the drives, up to the image named last.

- day_test is the third day drive, of which nothing is trained on. day_val lies in a gap of the training frames, one
  second from the nearest: fit for choosing a checkpoint, not for a score.
- dusk_train and dusk_test are two parts of one drive, for there is only one at dusk. The lists cut it where its frames
  are one second apart, so that the last training frames show nearly what the first test frames show. dusk_train
  therefore ends eleven seconds before the first test frame. dusk_train_all has the ten frames of those eleven seconds
  too: what all labels could give, a ceiling.
"""


def camvid_part(name: str, size: int) -> LabelledImageSet:
    """One of CAMVID_PARTS with CamVid's eleven classes, `size` pixels high. Raises DataError when it has no image."""
    part, drives, last = CAMVID_PARTS[name]
    images = open_images("camvid", part=part, size=(size, round(size * 4 / 3)))
    ids = [i for i, drive in drive_of_each(images.ids).items() if drive in drives and i <= (last or i)]
    if not ids:
        raise DataError(
            f"CamVid's {part}.txt names no image for {name}: it should name some of the sequence "
            f"{' or '.join(drives)}. Restore the list as published."
        )
    return images.restricted(ids, name.partition("_")[0])


def camvid(*, targets, size, draw=0, target_parts=1, **_) -> AdaptationTask:
    # The source is one and the same; a part of dusk is labelled images all over the drive, and a stretch of the test.
    (target,) = targets or ("dusk",)
    train, held_out, day = (camvid_part(f"day_{part}", size) for part in ("train", "val", "test"))
    pool = camvid_part("dusk_train_all" if target == "dusk_all" else "dusk_train", size)
    dusk, number = camvid_part("dusk_test", size), draw % target_parts
    stretch = [place * target_parts // len(dusk) == number for place in range(len(dusk))]
    dusk = dusk.restricted(itertools.compress(dusk.ids, stretch))
    tests = {"day": ImageSet(day, day.ids), target: ImageSet(dusk, dusk.ids)}
    groups = group_ids(pool.ids, drive_of_each(pool.ids).__getitem__)
    held_out = ImageSet(held_out, held_out.ids)
    return AdaptationTask(train, train.ids, pool, groups, tests, held_out, part=(number, target_parts))


def streets_camvid(*, size, device, **_) -> AdaptationTask:
    from fsslib.data.toyworld.streets import TO_CAMVID, Streets

    train, day = camvid_part("day_train", size), camvid_part("day_test", size)
    streets = Streets("game", size=size, device=device)
    game = Relabelled(streets, TO_CAMVID, train.class_names)
    seen = streets.test_ids(TEST_STREETS + HELD_OUT_STREETS)
    tests = {"game": ImageSet(game, seen[:TEST_STREETS]), "day": ImageSet(day, day.ids)}
    groups = group_ids(train.ids, drive_of_each(train.ids).__getitem__)
    return AdaptationTask(game, game.ids, train, groups, tests, ImageSet(game, seen[TEST_STREETS:]))


def cityscapes(*, source, targets, size, **_) -> AdaptationTask:
    shape = (size, 2 * size)
    computed = _cached(open_images(source, size=shape))
    train, val = (_cached(open_images("cityscapes", part=part, size=shape)) for part in ("train", "val"))
    (target,) = targets or ("cityscapes",)
    pool = train.restricted(PIXDA_ONE_SHOT) if target == "cityscapes_one_shot" else train
    ids, held_out = _last(computed.ids, HELD_OUT_STREETS)
    ids, tested = _last(ids, TEST_STREETS)
    tests = {source: ImageSet(computed, tested), target: ImageSet(val, val.ids)}
    groups = group_ids(pool.ids, city_of_each(pool.ids).__getitem__)
    return AdaptationTask(computed, ids, pool, groups, tests, ImageSet(computed, held_out))


def _last(ids: tuple[str, ...], count: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """All but the last `count` ids, and these; of few ids a fifth."""
    count = min(count, max(1, len(ids) // 5))
    return ids[:-count], ids[-count:]

"""Opening the tasks of `fsslib.data.DATA_SETS`: one function for each of them, by its name."""

from fsslib.data import FEWEST_IMAGES, open_images
from fsslib.data.sampling import group_ids, in_turn
from fsslib.data.streams import ImageSet, Relabelled
from fsslib.data.tasks import AdaptationTask, FewShotTask
from fsslib.files import DataError

DEFECT_SIZE = 320
"""Side at which the defects of MagneticTile are tested, whatever the training's: they are small."""


def toy(*, fold, source, targets, size, device, novel_as_background=False) -> FewShotTask:
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


def pascal(*, fold, size, **_) -> FewShotTask:
    from fsslib.data.pascal import PascalVOC

    part = _cached(PascalVOC(size=size)).fold(fold)
    benchmarks = {"photo": ("pascal", fold)}
    return FewShotTask(part.train, part.train_classes, {"photo": part.test}, part.test_classes, benchmarks=benchmarks)


def pascal_all(*, size, **_) -> FewShotTask:
    from fsslib.data.pascal import PascalVOC

    voc = _cached(PascalVOC(size=size))
    return FewShotTask(voc, (), {"photo": voc}, voc.usable_classes())


BENCHMARK_PARTS = {"chest_xray": {"part": "shenzhen"}}
"""What of a data set the published numbers are of, where it is not all; for its reader."""


def untrained(*, source, size, **_) -> FewShotTask:
    images = _cached(open_images(source, size=size, **BENCHMARK_PARTS.get(source, {})))
    asked = images.usable_classes(minimum_images=FEWEST_IMAGES)
    return FewShotTask(images, (), {source: images}, asked)


def coco(*, fold, targets, size, **_) -> FewShotTask:
    from fsslib.data.coco import Coco
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


def photos(*, fold, targets, size, **_) -> FewShotTask:
    from fsslib.data.camvid import CamVid
    from fsslib.data.coco import Coco
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


def streets(*, targets, size, device, **_) -> AdaptationTask:
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


def camvid(*, targets, size, **_) -> AdaptationTask:
    from fsslib.data.camvid import camvid_subsets, sequence_of

    part = camvid_subsets(size=(size, round(size * 4 / 3)))
    (target,) = targets or ("dusk",)
    pool = part["dusk_train_all" if target == "dusk_all" else "dusk_train"]
    tests = {"day": ImageSet(part["day_test"], part["day_test"].ids)}
    tests[target] = ImageSet(part["dusk_test"], part["dusk_test"].ids)
    groups = group_ids(pool.ids, sequence_of)
    held_out = ImageSet(part["day_val"], part["day_val"].ids)
    return AdaptationTask(part["day_train"], part["day_train"].ids, pool, groups, tests, held_out)


def streets_camvid(*, size, device, **_) -> AdaptationTask:
    from fsslib.data.camvid import camvid_subsets, sequence_of
    from fsslib.data.toyworld.streets import TO_CAMVID, Streets

    part = camvid_subsets(size=(size, round(size * 4 / 3)))
    streets = Streets("game", size=size, device=device)
    game = Relabelled(streets, TO_CAMVID, part["day_train"].class_names)
    seen = streets.test_ids(TEST_STREETS + HELD_OUT_STREETS)
    tests = {"game": ImageSet(game, seen[:TEST_STREETS]), "day": ImageSet(part["day_test"], part["day_test"].ids)}
    groups = group_ids(part["day_train"].ids, sequence_of)
    return AdaptationTask(game, game.ids, part["day_train"], groups, tests, ImageSet(game, seen[TEST_STREETS:]))


def cityscapes(*, source, targets, size, **_) -> AdaptationTask:
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

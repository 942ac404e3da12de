"""The check before training: classes, images and backgrounds that the test would find already learnt. 2 s."""

from dataclasses import replace

import pytest
import torch

from fsslib.data import open_task
from fsslib.data.images import ImageClasses, LabelledImageSet
from fsslib.data.joined import joined
from fsslib.data.leakage import LeakageError, check_leakage
from fsslib.data.streams import ImageSet
from fsslib.data.tasks import AdaptationTask, FewShotTask
from fsslib.episodes import LabelledImages

CAT, DOG, PERSON = 8, 12, 15
NAMES = {CAT: "cat", DOG: "dog", PERSON: "person"}


def images(name: str, contents: dict[str, set[int]], names=NAMES) -> LabelledImageSet:
    """A set of images that are never loaded, with the classes each holds large enough."""

    def load(image_id):
        raise AssertionError(image_id)

    found = {i: ImageClasses(frozenset(classes), frozenset(classes)) for i, classes in contents.items()}
    return LabelledImageSet(found, load, names, name=name, domain=name, size=8)


def task(train: dict[str, set[int]], test: dict[str, set[int]], **names) -> FewShotTask:
    return FewShotTask(images("voc", train), (CAT,), {"photo": images("voc", test)}, (DOG,))


def test_a_sound_task_passes():
    assert check_leakage(task({"a": {CAT}, "b": {CAT, PERSON}}, {"c": {DOG}, "d": {DOG, CAT}})) is None


def test_images_of_the_test_among_those_of_training():
    shared = task({"a": {CAT}, "b": {CAT}}, {"b": {CAT}, "c": {DOG}})
    with pytest.raises(LeakageError, match=r"1 \(b\) of the training images are in the test in photo too"):
        check_leakage(shared)
    # Only images with one id in sets of one name are the same.
    check_leakage(replace(shared, tests={"photo": images("other", {"b": {CAT}, "c": {DOG}})}))


def test_images_are_the_same_in_a_joined_set_and_under_other_names_of_coco():
    voc, coco = images("voc", {"a": {CAT}}), images("coco", {"COCO_val2014_000000000042": {CAT}, "x": {CAT}})
    both = joined((voc, coco), name="photos", domain="photo")
    for test, told in ((voc, "voc/a"), (images("coco", {"000000000042": {DOG}}), "coco/COCO_val2014_000000000042")):
        with pytest.raises(LeakageError, match=rf"1 \({told}\) of the training images"):
            check_leakage(FewShotTask(both, (CAT,), {"photo": test}, (DOG,)))


def test_many_images_are_counted_and_three_are_named():
    names = {f"i{k}": {CAT} for k in range(5)}
    with pytest.raises(LeakageError, match=r"5 \(i0, i1, i2 \.\.\.\) of the training images"):
        check_leakage(task(names, {**names, "z": {DOG}}))


def test_novel_classes_as_background_are_a_switch():
    seen = task({"a": {CAT}, "b": {CAT, DOG}, "c": {DOG}}, {"z": {DOG}})
    with pytest.raises(
        LeakageError, match=r"of the test in photo as background: dog in 2 \(b, c\)\. Drop them, as BAM"
    ):
        check_leakage(seen)
    check_leakage(seen, novel_as_background=True)
    check_leakage(replace(seen, train=seen.train.without_classes({DOG})))


@pytest.mark.parametrize("novel_as_background", [False, True])
def test_the_toy_world_draws_novel_classes_or_not(novel_as_background):
    toy = open_task("toy", fold=1, novel_as_background=novel_as_background)
    check_leakage(toy, novel_as_background=True)
    if novel_as_background:
        with pytest.raises(LeakageError, match=r"as background: .* in all"):
            check_leakage(toy)
    else:
        check_leakage(toy)


@pytest.mark.parametrize(
    ("learnt", "asked", "said"),
    [
        ("tvmonitor", "TV", "TV .trained on as tvmonitor."),
        ("dining table", "dining_table", "dining_table .trained on as dining table."),
        ("person", "diver", "diver .trained on as person."),
        ("bicycle", "bicyclist", "bicyclist .trained on as bicycle."),
        ("person", "rider", "rider .trained on as person."),
    ],
)
def test_a_class_under_another_name(learnt, asked, said):
    train = images("voc", {"a": {1}}, {1: learnt})
    test = images("other", {"b": {2}}, {2: asked, 3: "fish"})
    with pytest.raises(LeakageError, match=f"in training and in the test in sea: {said}. Leave them out"):
        check_leakage(FewShotTask(train, (1,), {"sea": test}, (2,)))
    check_leakage(FewShotTask(train, (1,), {"sea": test}, (3,)))


def test_divers_are_people_also_where_they_are_only_background():
    # People are too rare to be learnt and stay in the pictures: SUIM's divers would not be new.
    suim = images("suim", {"z": {PERSON}})
    with pytest.raises(LeakageError, match=r"test in suim as background: person in 1 \(a\)"):
        check_leakage(FewShotTask(images("voc", {"a": {CAT, PERSON}}), (CAT,), {"suim": suim}, (PERSON,)))


def test_a_task_that_trains_nothing_cannot_leak():
    voc = images("voc", {"a": {CAT}, "b": {DOG}})
    assert check_leakage(FewShotTask(voc, (), {"photo": voc}, (CAT, DOG))) is None
    with pytest.raises(LeakageError, match=r"2 .a, b. of the training images"):
        check_leakage(FewShotTask(voc, (CAT,), {"photo": voc}, (DOG,)))


class Streets:
    """Images with a fixed list of classes that are never loaded."""

    domain, class_names = "day", {0: "road"}

    def __init__(self, name: str, ids: str):
        self.name, self.ids = name, tuple(ids)

    def images(self, ids) -> LabelledImages:
        return LabelledImages(torch.zeros(0, 3, 1, 1), torch.zeros(0, 1, 1, dtype=torch.int64))


def test_adaptation_keeps_its_tests_out_of_both_sides_of_training():
    game, town = Streets("game", "abcdef"), Streets("town", "abcdef")
    sound = AdaptationTask(
        game, ("a", "b"), town, {"drive": ("c", "d")}, {"town": ImageSet(town, ("a", "e"))}, ImageSet(game, ("c",))
    )
    check_leakage(sound)
    for changed, said in (
        ({"source_ids": ("a", "c")}, r"1 \(c\) of the training images are in the choice of a checkpoint"),
        (
            {"target_ids_by_group": {"x": ("c",), "y": ("e",)}},
            r"1 \(e\) of the training images are in the test in town",
        ),
        ({"tests": {"game": ImageSet(game, ("b",))}}, r"1 \(b\) .* the test in game"),
    ):
        with pytest.raises(LeakageError, match=said):
            check_leakage(replace(sound, **changed))

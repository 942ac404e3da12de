"""Tasks: what is learnt and what is asked, for both kinds; streams and sets of images; the check for leaks. 20 s."""

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image

from fsslib.data import DATA_SETS, EPISODES, open_task
from fsslib.data.benchmarks import coco_fold, frozen, pascal_fold, pfenet
from fsslib.data.decode import DataError
from fsslib.data.images import ImageClasses, LabelledImageSet
from fsslib.data.names import class_id
from fsslib.data.quirks import city_of_each
from fsslib.data.sampling import group_ids, in_turn
from fsslib.data.sets import joined, open_images
from fsslib.data.streams import ImageSet, ImageStream, PairStream, Relabelled
from fsslib.data.tasks import UNLABELLED, AdaptationTask, FewShotTask, LeakageError, check_leakage
from fsslib.data.toyworld import ToyWorld
from fsslib.data.toyworld.streets import CITIES, CLASS_NAMES, TO_CAMVID, Streets, city_of
from fsslib.episodes import VOID, LabelledImages
from fsslib.reproduction.config import parse
from fsslib.reproduction.experiment import Experiment
from fsslib.reproduction.plans import Plan
from tests.data import trees
from tests.data.made import Made
from tests.data.trees import open_drawn_streets
from tests.test_protocols import draw_voc


class Numbers:
    """A source whose pictures show their number: image n is n / 100 everywhere, its labels n % 3, a corner void."""

    name, domain = "numbers", "counted"

    def __init__(self, count: int):
        self.ids = tuple(f"{'ab'[n % 2]}-{n:03d}" for n in range(count))
        self.class_names = {0: "zero", 1: "one", 2: "two"}

    def images(self, ids):
        numbers = torch.tensor([int(i[-3:]) for i in ids])
        labels = (numbers % 3)[:, None, None].repeat(1, 2, 2)
        labels[:, 0, 0] = VOID
        return LabelledImages((numbers / 100)[:, None, None, None].expand(-1, 3, 2, 2), labels, self.domain)


def numbers_in(batch: LabelledImages) -> list[int]:
    return (batch.images[:, 0, 0, 0] * 100).round().int().tolist()


class TestStreams:
    def test_a_batch_is_a_function_of_seed_and_step(self):
        source = Numbers(30)
        first, again, other = (ImageStream(source, source.ids, 8, seed) for seed in ("1", "1", "2"))
        assert numbers_in(first.batch(3)) == numbers_in(again.batch(3))
        assert numbers_in(first.batch(3)) != numbers_in(first.batch(4))
        assert numbers_in(first.batch(3)) != numbers_in(other.batch(3))

    def test_images_of_a_batch_differ_as_long_as_there_are_enough(self):
        source = Numbers(9)
        stream = ImageStream(source, source.ids, 8)
        assert all(len(set(numbers_in(stream.batch(step)))) == 8 for step in range(20))
        small = ImageStream(source, source.ids[:3], 8)
        counts = [numbers_in(small.batch(0)).count(n) for n in range(3)]
        assert sorted(counts) == [2, 3, 3]

    def test_a_stream_of_nothing_is_refused(self):
        with pytest.raises(ValueError, match="A stream needs at least one image; numbers was left with none"):
            ImageStream(Numbers(3), (), 2)

    def test_among_restricts_the_source_and_leaves_the_target(self):
        source = Numbers(30)
        pair = PairStream(ImageStream(source, source.ids, 4, "s"), ImageStream(source, source.ids[:5], 4, "t"))
        chosen, target = pair.batch(7, among=[20, 21, 22, 23])
        assert set(numbers_in(chosen)) == {20, 21, 22, 23}
        assert numbers_in(target) == numbers_in(pair.batch(7)[1])

    def test_a_set_is_batched_in_order_and_hashed_by_its_ids(self):
        source = Numbers(7)
        images = ImageSet(source, source.ids)
        assert [numbers_in(batch) for batch in images.batches(3)] == [[0, 1, 2], [3, 4, 5], [6]]
        assert len(images) == 7
        assert images.sha256 == ImageSet(Numbers(9), source.ids).sha256
        assert images.sha256 != ImageSet(source, source.ids[:6]).sha256

    def test_relabelling_moves_classes_and_keeps_void(self):
        seen = Relabelled(Numbers(3), {0: 2, 1: 0, 2: 1}, {0: "x", 1: "y", 2: "z"})
        labels = seen.images(seen.ids).labels
        assert labels[:, 1, 1].tolist() == [2, 0, 1]
        assert (labels[:, 0, 0] == VOID).all()
        assert (seen.name, seen.domain) == ("numbers", "counted")


class TestSampling:
    def test_groups_take_turns(self):
        ids = ["a-1", "a-2", "a-3", "b-1", "c-1", "c-2"]
        assert in_turn(ids, city_of) == ("a-1", "b-1", "c-1", "a-2", "c-2", "a-3")
        assert group_ids(ids, city_of) == {"a": ("a-1", "a-2", "a-3"), "b": ("b-1",), "c": ("c-1", "c-2")}


@pytest.fixture(scope="module")
def task():
    return open_task("streets", source="game", targets=("cities",), size=32)


class TestStreets:
    def test_it_is_a_finite_source_and_four_cities(self, task):
        assert isinstance(task, AdaptationTask)
        assert task.method_options == {"num_classes": 11, "source_images": 512}
        assert task.train_classes == tuple(range(11))
        assert list(task.target_ids_by_group) == list(CITIES)
        assert "tested in: game 200, cities 200" in task.describe()

    def test_no_image_is_in_two_parts(self, task):
        parts = [
            task.source_ids,
            tuple(i for ids in task.target_ids_by_group.values() for i in ids),
            *(exam.ids for exam in task.tests.values()),
            task.held_out.ids,
        ]
        together = [i for part in parts for i in part]
        assert len(together) == len(set(together))

    def test_k_is_per_city_and_changes_with_the_seed(self, task):
        drawn = task.labelled_targets(5, seed=0)
        assert {city: sum(city_of(i) == city for i in drawn) for city in CITIES} == dict.fromkeys(CITIES, 5)
        assert drawn != task.labelled_targets(5, seed=1)
        assert set(task.labelled_targets(1, seed=0)) <= set(drawn)

    def test_a_short_exam_asks_all_cities(self, task):
        exams = task.exams(8, ways=1, shots=5, seed="x")
        assert [len(exam) for exam in exams.values()] == [8, 8]
        assert {city_of(i) for i in exams["cities"].ids} == set(CITIES)

    def test_its_streams_carry_both_domains(self, task):
        source, target = task.streams(batch_size=2, shots=1, seed=0)["both"].batch(0)
        assert (source.domain, target.domain) == ("game", "cities")
        assert source.images.shape == (2, 3, 32, 64)
        with pytest.raises(ValueError, match="no ways; found ways 2"):
            task.streams(batch_size=2, ways=2)

    def test_too_many_images_per_city_is_an_error(self, task):
        with pytest.raises(ValueError, match="K = 513"):
            task.streams(batch_size=2, shots=513)

    def test_the_rarest_third_is_what_the_tables_say(self):
        from fsslib.reproduction.result import RARE

        streets = Streets("game", size=48)
        labels = streets.images(streets.ids[:128]).labels
        shares = torch.bincount(labels[labels != VOID], minlength=11)
        rarest = {CLASS_NAMES[c] for c in shares.argsort()[:4].tolist()}
        assert rarest == {name for name in RARE if name in CLASS_NAMES.values()}


class TestCamVid:
    @pytest.fixture
    def root(self, tmp_path, monkeypatch):
        trees.draw_camvid(tmp_path)
        monkeypatch.setenv("FSSLIB_DATA", str(tmp_path))

    def test_day_to_dusk(self, root):
        task = open_task("camvid", source="day", targets=("dusk",), size=30)
        assert all(i.startswith("0001TP") for i in task.labelled_targets(2, seed=0))
        assert all(i.startswith("Seq05VD") for i in task.tests["day"].ids)
        assert not set(task.tests["dusk"].ids) & set(task.labelled_targets(2, seed=0))
        assert task.tests["day"].source.images(task.tests["day"].ids[:1]).images.shape == (1, 3, 30, 40)
        assert len(open_task("camvid", source="day", targets=("dusk_all",)).target_ids_by_group["0001TP"]) == 3
        assert len(open_task("camvid", source="day").target_ids_by_group["0001TP"]) == 2
        assert {i[:6] for i in task.held_out.ids} == {"0016E5"}

    def test_a_list_without_a_drive(self, root, tmp_path):
        path = tmp_path / "CamVid" / "val.txt"
        path.write_text("val/0001TP_006690.jpg valannot/0001TP_006690.png\n")
        for file in ("val/0016E5_07959.jpg", "valannot/0016E5_07959.png"):
            (tmp_path / "CamVid" / file).rename(tmp_path / "CamVid" / file.replace("0016E5_07959", "0001TP_006690"))
        with pytest.raises(DataError, match=r"val.txt names no image for day_val: .* sequence 0016E5\. Restore"):
            open_task("camvid", source="day")

    def test_the_game_to_day_speaks_camvids_classes(self, root):
        task = open_task("streets_camvid", source="game", targets=("day",), size=32)
        assert task.source.class_names == task.target.class_names
        own = Streets("game", size=32).images(task.source_ids[:4]).labels
        seen = task.source.images(task.source_ids[:4]).labels
        for street, camvid in TO_CAMVID.items():
            assert torch.equal(own == street, seen == camvid)


def test_few_shot_exams_are_those_that_were_always_asked():
    task = open_task("toy", fold=1, targets=("night",))
    exams = task.exams(6, ways=2, shots=1, seed="s")
    rows = task.tests["photo"].sample(task.test_classes, 6, ways=2, shots=1, seed="s", presence_probability=1.0)
    assert exams["photo"].manifest.rows == tuple(rows)
    assert exams["photo"].sha256 == exams["night"].sha256 == exams["photo"].manifest.sha256
    assert "tested in photo, night on 5 classes" in task.describe()
    assert task.held_out is None
    assert task.method_options == {}


def test_the_protocol_of_hsnet_asks_its_published_episodes(tmp_path, monkeypatch):
    rows = frozen("pascal", "hsnet", shots=1, fold=1).rows[:2]
    trees.draw_voc(tmp_path, {i: row.classes for row in rows for i in (row.query, *row.supports[0])}, "val")
    voc = open_images("pascal", root=tmp_path, size=32)
    task = FewShotTask(voc, (), {"photo": voc}, (rows[0].classes[0],), benchmarks={"photo": ("pascal", 1)})
    assert task.exams(5, seed="any", protocol="hsnet")["photo"].manifest.rows == rows
    assert task.exams(1, protocol="hsnet")["photo"].manifest.rows == rows[:1]
    with pytest.raises(DataError, match="1-way and there for photo; found 2 ways in photo"):
        task.exams(1, ways=2, protocol="hsnet")
    with pytest.raises(DataError, match="there for no domain of this task; found 1 ways in photo"):
        FewShotTask(voc, (), {"photo": voc}, (1,)).exams(1, protocol="hsnet")
    target = FewShotTask(voc, (), {"photo": voc, "other": voc}, (1,), benchmarks={"photo": ("pascal", 1)})
    monkeypatch.setattr(LabelledImageSet, "under", lambda *_: pytest.fail("no label map is made before all is granted"))
    with pytest.raises(DataError, match="there for photo; found 1 ways in other"):
        target.exams(1, protocol="hsnet")
    assert open_task("toy").benchmarks == {}


def test_the_protocol_of_pfenet_draws_from_the_val_list_by_its_rule(tmp_path, monkeypatch):
    maps = draw_voc(tmp_path)
    trees.draw_voc(tmp_path, {"2000_000001": [1]})
    monkeypatch.setenv("FSSLIB_DATA", str(tmp_path))
    voc = open_images("pascal", size=73)
    task = FewShotTask(voc, (), {"photo": voc}, (1,), benchmarks={"photo": ("pascal", 0)})
    exam = task.exams(20, seed="any", protocol="pfenet")["photo"]
    areas = {i: {c: int((labels == c).sum()) for c in (1, 2, 3, 4, 5) if c in labels} for i, labels in maps.items()}
    about = {"data": "pascal", "fold": "0", "present": f"{len(maps)} of {len(maps)} images"}
    assert exam.manifest == pfenet(areas, (1, 2, 3, 4, 5), shots=1, episodes=20, **about)
    fewer = voc.restricted(voc.ids[2:])
    task = FewShotTask(voc, (), {"photo": fewer}, (1,), benchmarks={"photo": ("pascal", 0)})
    about = task.exams(20, protocol="pfenet")["photo"].manifest.about
    assert about["present"] == f"{len(maps) - 1} of {len(maps)} images"
    (batch,) = exam.batches(20)
    assert batch.query_labels[0, -1].unique().tolist() == [VOID]
    assert batch.query_originals[0].shape == maps[exam.manifest.rows[0].query].shape


def test_what_has_one_size_only_is_not_asked_for_another():
    with pytest.raises(ValueError, match=r"photo has no label maps at a size of their own\. Choose another protocol"):
        open_task("toy").exams(1, protocol="original")
    for protocol in ("original", "hsnet", "panet", "pfenet"):
        with pytest.raises(ValueError, match=f"'{protocol}' is a rule for episodes; images of a set have no ways"):
            open_task("streets", source="game").exams(1, protocol=protocol)


def test_a_domain_may_ask_for_classes_of_its_own_but_for_none_that_is_learnt():
    world = ToyWorld("photo")
    one, two, three, *_ = world.class_names
    task = FewShotTask(world, (one,), {"photo": world, "night": world}, (two,), {"night": (three,)})
    assert task.classes_in("photo") == (two,)
    assert task.classes_in("night") == (three,)
    assert {row.classes for row in task.exams(3)["night"].manifest.rows} == {(three,)}
    with pytest.raises(ValueError, match="in training and in the test in night"):
        FewShotTask(world, (one,), {"photo": world, "night": world}, (two,), {"night": (one,)})


@pytest.mark.parametrize("data", sorted(DATA_SETS))
def test_unknown_domains_are_refused_with_those_there_are(data):
    facts = DATA_SETS[data]
    with pytest.raises(ValueError, match=rf"Unknown domain 'mars' of {data}; there are .*{facts.sources[0]}"):
        open_task(data, source="mars")
    with pytest.raises(ValueError, match=rf"Unknown domain 'mars' of {data}; there are"):
        open_task(data, source=facts.sources[0], targets=("mars",))


# From photographs to what a fold holds out, and to other data sets


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Every data set drawn; VOC with twenty images of each class of fold 1, and six or seven of some others."""
    monkeypatch.setattr("fsslib.data.cache.cache_root", lambda: tmp_path / "cache")
    monkeypatch.setenv("FSSLIB_DATA", str(tmp_path))
    for name, draw in trees.TREES.items():
        if name != "pascal":
            draw(tmp_path)
    counts = dict.fromkeys(pascal_fold(1), 20) | {12: 7, 13: 6, 3: 5}
    shown = {f"2010_{c:02d}{k:04d}": [c] for c, count in counts.items() for k in range(count)}
    trees.draw_voc(tmp_path, shown | {"2011_000001": [12]})
    path = tmp_path / "VOCdevkit/VOC2012/SegmentationClassAug/2011_000001.png"
    with Image.open(path) as image:
        image.paste(7, (0, 0, 3, 3))  # a dog, and a scrap of a car
    image.save(path)
    return tmp_path


def test_training_never_sees_a_pixel_of_a_held_out_class(world):
    task = open_task("pascal", fold=1, size=32)
    assert task.test_classes == pascal_fold(1)
    assert task.train_classes == (12, 13), "a class needs six images to be learnt"
    assert all(task.train.contents[i].held.isdisjoint(pascal_fold(1)) for i in task.train.ids)
    everything = open_images("pascal", size=32)
    assert sorted([*task.train.ids, *task.tests["photo"].ids]) == list(everything.ids)
    assert "2011_000001" in task.tests["photo"].ids, "a scrap of a held-out class is a pixel of it"
    assert task.benchmarks == {"photo": ("pascal", 1)}


def test_a_fold_without_enough_images_shows_the_counts(world):
    with pytest.raises(DataError) as caught:
        open_task("pascal", fold=2, size=32)
    said = str(caught.value)
    assert said.startswith(
        "Fold 2 of pascal holds out diningtable 0, dog 8, horse 6, motorbike 0, person 0, and a class"
    )
    assert "needs 20 images to be tested. 105 of 119 images are left to train on, with 5 classes" in said
    assert said.endswith("Folds that can be learnt and tested: 1. Choose one of them, or add images.")
    with pytest.raises(DataError, match="PASCAL-5i has the folds 0, 1, 2 and 3; asked for 4"):
        open_task("pascal", fold=4, size=32)


ASKED = {
    "camvid": {"sky", "road", "pavement", "tree", "building", "fence"},
    "magnetic_tile": {"break", "fray", "uneven"},
    "suim": {"reef", "fish"},
    "deepglobe": {"water", "rangeland", "barren land", "agriculture land", "urban land", "forest land"},
    "isic": {"nevus", "melanoma", "seborrheic keratosis"},
    "chest_xray": {"lung"},
    "kvasir": {"polyp"},
    "fss_1000": {"accordion"},
}
"""The classes that the trees show, by target; the fewest images of a target are lowered to one for them."""


def lower_the_bar(monkeypatch) -> None:
    from fsslib.data import openers

    facts = {name: replace(openers.TARGETS.get(name, openers.Target()), fewest=1) for name in EPISODES}
    monkeypatch.setattr(openers, "TARGETS", facts)


@pytest.mark.parametrize("data", ["pascal", "cdfss"])
def test_any_set_can_be_the_target_of_a_trained_run(world, data, monkeypatch):
    lower_the_bar(monkeypatch)
    targets = tuple(ASKED)
    assert {*targets} == {*EPISODES} - {"pascal", "coco"}
    task = open_task(data, fold=int(data == "pascal"), targets=targets, size=32)
    assert list(task.tests) == (["photo"] if data == "pascal" else []) + list(targets)
    learnt = {12, 13} if data == "pascal" else {*pascal_fold(1), 12, 13}
    assert set(task.train_classes) == learnt
    for target, names in ASKED.items():
        # Divers are people: not asked for, though no picture of VOC at hand shows any.
        assert {task.tests[target].class_names[c] for c in task.classes_in(target)} == names, target
    assert len(task.tests["chest_xray"]) == 3, "the X-rays of one hospital, which published numbers are of"
    assert {i.partition("/")[0] for i in task.tests["fss_1000"].ids} == {"accordion", "diver"}, "its test"
    assert task.tests["magnetic_tile"].size == 320
    check_leakage(task)
    with pytest.raises(DataError, match=r"1-shot episodes of class 82 \(pavement\) need 2 images"):
        task.exams(9)
    exam = open_task(data, fold=int(data == "pascal"), targets=("isic",), size=32)
    rows = exam.exams(9, seed="x")["isic"].manifest.rows
    assert {row.classes[0] for row in rows} == set(task.classes_in("isic"))


def test_what_training_has_seen_is_not_asked_for_elsewhere(world):
    with pytest.raises(
        DataError, match=r"No class of isic that training is not for has 5 images; these 6 show nevus 2, .*leave"
    ):
        open_task("cdfss", targets=("isic",), size=32)
    with pytest.raises(DataError, match="cdfss tests in other data sets alone, and none is named"):
        open_task("cdfss", size=32)


def test_coco_and_both_together(world, monkeypatch):
    from fsslib.data import openers

    few = {name: replace(source, tested=1, learnt=1) for name, source in openers.SOURCES.items()}
    monkeypatch.setattr(openers, "SOURCES", few)
    lower_the_bar(monkeypatch)
    fold = next(f for f in range(4) if class_id("dog") in coco_fold(f))
    task = open_task("coco", fold=fold, targets=("pascal", "fss1000"), size=32)
    assert class_id("dog") not in task.train_classes
    assert class_id("dog") in task.test_classes
    assert set(task.classes_in("pascal")) & set(task.train_classes) == set()
    assert class_id("dog") in task.classes_in("pascal")
    assert set(task.tests) == {"photo", "pascal", "fss1000"}
    both = open_task("photos", fold=1, targets=("suim",), size=32)
    assert {i.partition("/")[0] for i in both.train.ids} == {"pascal", "coco"}
    assert both.train.name == "photos"
    assert both.test_classes == pascal_fold(1)


@pytest.mark.parametrize("plan", ["full_rtd_suim", "full_cdfss"])
def test_the_full_plans_run_on_what_is_drawn(world, plan, monkeypatch, tmp_path):
    from fsslib.data import openers

    few = {name: replace(source, tested=1, learnt=2) for name, source in openers.SOURCES.items()}
    monkeypatch.setattr(openers, "SOURCES", few)
    lower_the_bar(monkeypatch)
    small = {"image_size": 33, "episodes": 2, "batch_size": 1, "shots": 1, "device": "cpu", "weights": "none"}
    for label, config in dict(Plan.load(plan).runs).items():
        fold = {"coco": 0, "pascal": 1, "cdfss": 0}[config.data]
        run = parse(
            config.model_dump() | small | {"fold": fold, "steps": min(1, config.steps), "output": str(tmp_path / label)}
        )
        experiment = Experiment(run)
        experiment.train()
        found = experiment.test()
        assert set(found) == {*(["photo"] if config.data != "cdfss" else []), *config.targets}
        assert all(meter.compute().episodes == 2 for meter in found.values())
        assert set(json.loads(experiment.record().read_bytes())["scores"]) == set(found)


@pytest.mark.parametrize("source", [name for name in EPISODES if name != "coco"])
def test_every_set_is_asked_without_training(world, source, monkeypatch):
    monkeypatch.setattr("fsslib.data.openers.FEWEST_IMAGES", 2)
    task = open_task("untrained", source=source, size=32)
    assert task.train_classes == ()
    assert all(len(task.train.images_by_class[c]) >= 2 for c in task.test_classes)
    assert list(task.tests) == [source]
    assert len(task.train) == (3 if source == "chest_xray" else len(open_images(source, size=32)))


# The check before training


CAT, DOG, PERSON = 8, 12, 15
NAMES = {CAT: "cat", DOG: "dog", PERSON: "person"}


def images(name: str, contents: dict[str, set[int]], names=NAMES) -> LabelledImageSet:
    """A set of images that are never loaded, with the classes each holds large enough."""

    made = Made(dict.fromkeys(contents), names, name=name, domain=name, size=8)
    made.contents = {i: ImageClasses(frozenset(classes), frozenset(classes)) for i, classes in contents.items()}
    return made


def task_of(train: dict[str, set[int]], test: dict[str, set[int]], **names) -> FewShotTask:
    return FewShotTask(images("voc", train), (CAT,), {"photo": images("voc", test)}, (DOG,))


def test_a_sound_task_passes():
    assert check_leakage(task_of({"a": {CAT}, "b": {CAT, PERSON}}, {"c": {DOG}, "d": {DOG, CAT}})) is None


def test_images_of_the_test_among_those_of_training():
    shared = task_of({"a": {CAT}, "b": {CAT}}, {"b": {CAT}, "c": {DOG}})
    with pytest.raises(LeakageError, match=r"1 \(b\) of the training images are in the test in photo too"):
        check_leakage(shared)
    names = {f"i{k}": {CAT} for k in range(5)}
    with pytest.raises(LeakageError, match=r"5 \(i0, i1, i2 \.\.\.\) of the training images"):
        check_leakage(task_of(names, {**names, "z": {DOG}}))
    # Only images with one id in sets of one name are the same.
    check_leakage(replace(shared, tests={"photo": images("other", {"b": {CAT}, "c": {DOG}})}))


def test_images_are_the_same_in_a_joined_set_and_under_other_names_of_coco():
    voc, coco = images("voc", {"a": {CAT}}), images("coco", {"COCO_val2014_000000000042": {CAT}, "x": {CAT}})
    both = joined((voc, coco), name="photos", domain="photo")
    for test, told in ((voc, "voc/a"), (images("coco", {"000000000042": {DOG}}), "coco/COCO_val2014_000000000042")):
        with pytest.raises(LeakageError, match=rf"1 \({told}\) of the training images"):
            check_leakage(FewShotTask(both, (CAT,), {"photo": test}, (DOG,)))


def test_novel_classes_as_background_are_a_switch():
    seen = task_of({"a": {CAT}, "b": {CAT, DOG}, "c": {DOG}}, {"z": {DOG}})
    with pytest.raises(
        LeakageError, match=r"of the test in photo as background: dog in 2 \(b, c\)\. Drop them, as BAM"
    ):
        check_leakage(seen)
    check_leakage(replace(seen, novel_as_background=True))
    check_leakage(replace(seen, train=seen.train.without_classes({DOG})))


@pytest.mark.parametrize("novel_as_background", [False, True])
def test_the_toy_world_draws_novel_classes_or_not(novel_as_background):
    toy = open_task("toy", fold=1, novel_as_background=novel_as_background)
    check_leakage(toy)
    if novel_as_background:
        with pytest.raises(LeakageError, match=r"as background: .* in all"):
            check_leakage(replace(toy, novel_as_background=False))


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


class Filmed:
    """Images with a fixed list of classes that are never loaded."""

    domain, class_names = "day", {0: "road"}

    def __init__(self, name: str, ids: str):
        self.name, self.ids = name, tuple(ids)

    def images(self, ids) -> LabelledImages:
        return LabelledImages(torch.zeros(0, 3, 1, 1), torch.zeros(0, 1, 1, dtype=torch.int64))


def test_adaptation_keeps_its_tests_out_of_both_sides_of_training():
    game, town = Filmed("game", "abcdef"), Filmed("town", "abcdef")
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


def test_without_labels_fifty_images_of_each_group_are_seen_and_all_is_void():
    task = open_task("streets", source="game", targets=("meadow",), size=32)
    unlabelled, stream = task.labelled_targets(0, seed=3), task.streams(batch_size=2, shots=0, seed=3)["target"]
    assert (len(unlabelled), stream.ids) == (UNLABELLED, unlabelled)
    assert set(task.labelled_targets(5, seed=3)) < set(unlabelled)
    batch = stream.batch(0)
    assert batch.labels.unique().tolist() == [VOID]
    seen = task.streams(batch_size=2, shots=5, seed=3)["target"].source.images(stream.ids[:1])
    assert torch.equal(seen.images, stream.source.images(stream.ids[:1]).images)
    assert len(seen.labels.unique()) > 2


def test_parts_of_the_target_are_labelled_by_draw_and_seen_whole_without_labels():
    game, town = Filmed("game", "ab"), Filmed("town", "".join(map(chr, range(60, 120))))
    tests = {"town": ImageSet(town, ("z",))}
    draws = [
        AdaptationTask(game, game.ids, town, {"drive": town.ids}, tests, ImageSet(game, ()), part=(number, 10))
        for number in range(10)
    ]
    assert sorted(i for task in draws for i in task.labelled_targets(6, seed=0)) == sorted(town.ids)
    assert {len(task.labelled_targets(0, seed=0)) for task in draws} == {UNLABELLED}
    with pytest.raises(ValueError, match="has 6 images, and K = 7"):
        draws[0].labelled_targets(7, seed=0)


def test_of_spoilt_streets_every_tenth_image_stands_on_its_head():
    sound, spoilt = (
        open_task(data, source="game", targets=("meadow",), size=32) for data in ("streets", "streets_spoilt")
    )
    ids = sound.source_ids[:20]
    before, after = sound.source.images(ids), spoilt.source.images(ids)
    assert torch.equal(before.labels, after.labels)
    bad = torch.arange(20) % 10 == 0
    assert torch.equal(after.images[~bad], before.images[~bad])
    assert torch.equal(after.images[bad], before.images[bad].flip(2))
    assert not torch.equal(after.images[bad], before.images[bad])
    assert spoilt.tests["game"].source.images(ids[:1]).images.equal(before.images[:1])
    check_leakage(spoilt)


@pytest.mark.parametrize("source", ["gta5", "synthia"])
def test_computed_streets_to_cityscapes(tmp_path, monkeypatch, source):
    task = open_drawn_streets(tmp_path, monkeypatch, source)
    drawn = task.labelled_targets(1, seed=0)
    assert sorted(map(city_of_each(drawn).get, drawn)) == sorted(task.target_ids_by_group)
    kept_apart = [task.source_ids, task.tests[source].ids, task.held_out.ids]
    assert sum(map(len, kept_apart)) == len(set().union(*kept_apart)) == len(task.source.ids)
    assert not set(task.tests["cityscapes"].ids) & set(task.target.ids)
    computed, real = task.streams(batch_size=2, shots=1)["both"].batch(0)
    assert computed.labels.shape == real.labels.shape == (2, 16, 32)
    assert len(task.train_classes) == 19

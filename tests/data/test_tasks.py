"""Tasks: what is learnt and what is asked, for both kinds; streams and sets of images with fixed classes. 15 s."""

import os

import pytest
import torch

from fsslib.data import DATA_SETS, FEWEST_IMAGES, cityscapes, open_task
from fsslib.data.images import DataError
from fsslib.data.manifests import frozen, pfenet
from fsslib.data.names import class_id
from fsslib.data.pascal import PascalVOC
from fsslib.data.sampling import group_ids, in_turn, k_per_group
from fsslib.data.splits import coco_fold
from fsslib.data.streams import ImageSet, ImageStream, PairStream, Relabelled
from fsslib.data.tasks import AdaptationTask, FewShotTask
from fsslib.data.toyworld import ToyWorld
from fsslib.data.toyworld.streets import CITIES, CLASS_NAMES, TO_CAMVID, Streets, city_of
from fsslib.episodes import VOID, LabelledImages
from tests.data.camvid_fixture import draw_camvid
from tests.data.street_fixture import open_drawn_streets
from tests.data.voc_fixture import add_image, add_list
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

    def test_k_of_every_group(self):
        drawn = k_per_group(["a-1", "a-2", "a-3", "b-1", "b-2"], city_of, 2, seed=0)
        assert {group: len(set(ids)) for group, ids in drawn.items()} == {"a": 2, "b": 2}
        with pytest.raises(ValueError, match="Group 'b' has 2 images, and K = 3"):
            k_per_group(["a-1", "a-2", "a-3", "b-1", "b-2"], city_of, 3, seed=0)


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
        draw_camvid(tmp_path)
        monkeypatch.setenv("FSSLIB_DATA", str(tmp_path))

    def test_day_to_dusk(self, root):
        task = open_task("camvid", source="day", targets=("dusk",), size=30)
        assert all(i.startswith("0001TP") for i in task.labelled_targets(2, seed=0))
        assert all(i.startswith("Seq05VD") for i in task.tests["day"].ids)
        assert not set(task.tests["dusk"].ids) & set(task.labelled_targets(2, seed=0))
        assert task.tests["day"].source.images(task.tests["day"].ids[:1]).images.shape == (1, 3, 30, 40)
        assert len(open_task("camvid", source="day", targets=("dusk_all",)).target_ids_by_group["0001TP"]) == 4

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
    ids = sorted({image_id for row in rows for image_id in (row.query, *row.supports[0])})
    for image_id in ids:
        classes = [row.classes[0] for row in rows if image_id in (row.query, *row.supports[0])]
        add_image(tmp_path, image_id, [(classes[0], (5, 5, 30, 30))])
    add_list(tmp_path, "val", ids)
    voc = PascalVOC(tmp_path, size=32)
    task = FewShotTask(voc, (), {"photo": voc}, (rows[0].classes[0],), benchmarks={"photo": ("pascal", 1)})
    assert task.exams(5, seed="any", protocol="hsnet")["photo"].manifest.rows == rows
    assert task.exams(1, protocol="hsnet")["photo"].manifest.rows == rows[:1]
    with pytest.raises(DataError, match="1-way and there for photo; found 2 ways in photo"):
        task.exams(1, ways=2, protocol="hsnet")
    with pytest.raises(DataError, match="there for no domain of this task; found 1 ways in photo"):
        FewShotTask(voc, (), {"photo": voc}, (1,)).exams(1, protocol="hsnet")
    target = FewShotTask(voc, (), {"photo": voc, "other": voc}, (1,), benchmarks={"photo": ("pascal", 1)})
    monkeypatch.setattr(PascalVOC, "under", lambda *_: pytest.fail("no label map is made before all is granted"))
    with pytest.raises(DataError, match="there for photo; found 1 ways in other"):
        target.exams(1, protocol="hsnet")
    assert open_task("toy").benchmarks == {}


def test_the_protocol_of_pfenet_draws_from_the_val_list_by_its_rule(tmp_path):
    maps = draw_voc(tmp_path)
    add_image(tmp_path, "2000_000001", [(1, (5, 5, 65, 65))], size=(70, 70))
    add_list(tmp_path, "train", ["2000_000001"])
    voc = PascalVOC(tmp_path, size=73)
    task = FewShotTask(voc, (), {"photo": voc}, (1,), benchmarks={"photo": ("pascal", 0)})
    exam = task.exams(20, seed="any", protocol="pfenet")["photo"]
    areas = {i: {c: int((labels == c).sum()) for c in (1, 2, 3, 4, 5) if c in labels} for i, labels in maps.items()}
    about = {"data": "pascal", "fold": "0", "present": f"{len(maps)} of {len(maps)} images"}
    assert exam.manifest == pfenet(areas, (1, 2, 3, 4, 5), shots=1, episodes=20, **about)
    fewer = voc.restricted(voc.ids[2:])
    task = FewShotTask(voc, (), {"photo": fewer}, (1,), benchmarks={"photo": ("pascal", 0)})
    about = task.exams(20, protocol="pfenet")["photo"].manifest.about
    assert about["present"] == f"{len(maps) - 1} of {len(maps)} images"
    task = FewShotTask(voc, (), {"photo": voc}, (1,), benchmarks={"photo": ("coco", 0)})
    with pytest.raises(DataError, match=r"drawn from VOC's val list, which coco has not"):
        task.exams(20, protocol="pfenet")
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


@pytest.mark.realdata
@pytest.mark.skipif(not os.environ.get("FSSLIB_DATA"), reason="FSSLIB_DATA is not set: no real images to read")
def test_photographs_are_learnt_and_other_things_asked():
    pytest.importorskip("pycocotools")
    task = open_task("photos", fold=3, targets=("magnetic_tile", "camvid"), size=64)
    held_out = {class_id(name) for name in ("pottedplant", "sheep", "sofa", "train", "tvmonitor")}
    assert not held_out & set(task.train_classes)
    assert all(not held_out & task.train.contents[i].held for i in task.train.ids)
    assert {i.partition("/")[0] for i in task.train.ids} == {"pascal", "coco"}
    assert task.classes_in("magnetic_tile") == tuple(class_id(name) for name in ("break", "fray", "uneven"))
    exams = task.exams(30, seed="x")
    for row in exams["camvid"].manifest.rows:
        assert all(s.split("_")[0] != row.query.split("_")[0] for way in row.supports for s in way)
    assert next(exams["magnetic_tile"].batches(2)).query_images.shape[-1] == 320


@pytest.mark.realdata
@pytest.mark.skipif(not os.environ.get("FSSLIB_DATA"), reason="FSSLIB_DATA is not set: no real images to read")
def test_coco_to_pascal_asks_for_what_the_fold_leaves_new():
    pytest.importorskip("pycocotools")
    task = open_task("coco", fold=1, targets=("pascal",), size=64)
    novel = {class_id(name) for name in ("bicycle", "bus", "horse", "couch")}
    assert set(task.classes_in("pascal")) <= novel
    assert class_id("sofa") in task.classes_in("pascal")
    assert not (set(task.train_classes) & set(coco_fold(1)))
    assert all(not task.train.contents[i].held & set(coco_fold(1)) for i in task.train.ids)
    assert not set(task.train.ids) & set(task.tests["photo"].ids)
    assert set(task.streams(batch_size=2)) == {"source"}


@pytest.mark.realdata
@pytest.mark.skipif(not os.environ.get("FSSLIB_DATA"), reason="FSSLIB_DATA is not set: no real images to read")
def test_every_real_set_is_asked_without_training():
    for source in ("kvasir", "fss1000", "suim"):
        task = open_task("untrained", source=source, size=64)
        assert task.train_classes == ()
        assert all(len(task.train.images_by_class[c]) >= FEWEST_IMAGES for c in task.test_classes)
        assert len(task.exams(3)[source].manifest.rows) == 3
    with pytest.raises(ValueError, match="Unknown domain 'atlantis'"):
        open_task("untrained", source="atlantis")


@pytest.mark.parametrize("source", ["gta5", "synthia"])
def test_computed_streets_to_cityscapes(tmp_path, monkeypatch, source):
    task = open_drawn_streets(tmp_path, monkeypatch, source)
    drawn = task.labelled_targets(1, seed=0)
    assert sorted(map(cityscapes.city_of, drawn)) == sorted(task.target_ids_by_group)
    kept_apart = [task.source_ids, task.tests[source].ids, task.held_out.ids]
    assert sum(map(len, kept_apart)) == len(set().union(*kept_apart)) == len(task.source.ids)
    assert not set(task.tests["cityscapes"].ids) & set(task.target.ids)
    computed, real = task.streams(batch_size=2, shots=1)["both"].batch(0)
    assert computed.labels.shape == real.labels.shape == (2, 16, 32)
    assert len(task.train_classes) == 19

"""Every protocol against what the released code gives for the same files and answers, all made from seeds here. 10 s.

The golden numbers were printed by the released code, run beside this on the files that `draw_voc`, `draw_coco` and
`draw_fss` write, with the answers that `answers` makes:

- HSNet: github.com/juhongm999/hsnet, 6b1bc12b3ff9f3950f49c55ab6f089e8d9e0d191 (its data sets, Evaluator, AverageMeter)
- PANet: github.com/kaixin96/PANet, 1695bf37c2f7585323e09cfcfb3bef8d4fff1b86 (VOC, Resize, fewShot, Metric)
- PFENet: github.com/dvlab-research/PFENet, a5056754d232829644e84d36b1e1d30818bd4c4f (SemData, Resize, validate)
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from fsslib.data.coco import Picture, paint, read_instances
from fsslib.data.decode import fitted, read_label_map
from fsslib.data.images import LabelledImageSet
from fsslib.data.names import class_id, fss_1000
from fsslib.data.sets import joined, open_images
from fsslib.data.toyworld import ToyWorld
from fsslib.episodes import VOID, Episode, EpisodeManifest, EpisodeRow, EpisodeSet, sample_rows
from fsslib.methods.base import Method, Prediction, prediction_from_scores
from fsslib.metrics import PROTOCOLS, FewShotMeter
from fsslib.paths import project_root
from fsslib.training.evaluate import evaluate
from tests.data.hsnet_lists import hsnet_pascal

SIZE = 73
"""Side of the input: of 8 m + 1 pixels, as PFENet wants it."""

PANETS = 72
"""Another for PANet. No pixel's centre lies between two then, where Pillow and torch round to different sides."""

SHAPES = ((150, 200), (200, 150), (165, 165), (170, 219), (233, 162), (122, 244), (185, 150), (213, 158))
CLASSES = (1, 2, 3, 4, 5)


def boxes(number: int, height: int, width: int, count: int) -> list[tuple[int, int, int, int]]:
    """Rectangles (top, left, bottom, right) that overlap, a third to a half of each side long."""
    rng = np.random.RandomState(number)
    found = []
    for _ in range(count):
        sides = [side // 3 + rng.randint(side // 6) for side in (height, width)]
        top, left = (rng.randint(side - length) for side, length in zip((height, width), sides))
        found.append((top, left, top + sides[0], left + sides[1]))
    return found


def picture(number: int, height: int, width: int) -> Image.Image:
    return Image.fromarray(np.random.RandomState(number).randint(0, 256, (height, width, 3)).astype(np.uint8))


def draw_voc(root: Path) -> dict[str, np.ndarray]:
    """Eight images with three of five classes each, a rim of void; returns their label maps. PNG within: lossless."""
    voc, maps = root / "VOCdevkit" / "VOC2012", {}
    for folder in ("JPEGImages", "SegmentationClassAug", "ImageSets/Segmentation"):
        (voc / folder).mkdir(parents=True)
    for number, (height, width) in enumerate(SHAPES):
        labels = np.zeros((height, width), dtype=np.uint8)
        for k, (top, left, bottom, right) in enumerate(boxes(number, height, width, 3)):
            labels[max(top - 2, 0) : bottom + 2, max(left - 2, 0) : right + 2] = VOID
            labels[top:bottom, left:right] = CLASSES[(number + 2 * k) % 5]
        image_id = f"2007_{number:06d}"
        maps[image_id] = labels
        picture(number, height, width).save(voc / "JPEGImages" / f"{image_id}.jpg", format="PNG")
        Image.fromarray(labels).save(voc / "SegmentationClassAug" / f"{image_id}.png")
    (voc / "ImageSets" / "Segmentation" / "val.txt").write_text("".join(f"{i}\n" for i in maps))
    return maps


def pairs_in(maps: dict[str, np.ndarray]) -> list[tuple[str, int]]:
    return [(i, c) for i, labels in maps.items() for c in CLASSES if (labels == c).sum() > 300]


COCO_NAMES = {1: "person", 5: "airplane", 9: "boat"}
"""COCO-20i's fold 0 by category number, which of these three is the place in its list of 80 as well."""


def coco_objects() -> dict[str, list[tuple[int, tuple[int, int, int, int]]]]:
    """Four images with seven overlapping objects each, (category, box), in the JSON's order."""
    return {
        f"COCO_val2014_{number:012d}": [(1 + 4 * (k % 3), box) for k, box in enumerate(boxes(100 + number, *shape, 7))]
        for number, shape in enumerate(SHAPES[:4])
    }


def draw_coco(root: Path) -> None:
    (root / "coco" / "val2014").mkdir(parents=True)
    (root / "coco" / "annotations").mkdir()
    content = {"images": [], "annotations": [], "categories": [{"id": c, "name": n} for c, n in COCO_NAMES.items()]}
    for number, ((name, objects), (height, width)) in enumerate(zip(coco_objects().items(), SHAPES)):
        picture(number, height, width).save(root / "coco" / "val2014" / f"{name}.jpg", format="PNG")
        content["images"].append({"id": number, "file_name": f"{name}.jpg", "height": height, "width": width})
        for k, (category, (top, left, bottom, right)) in enumerate(objects):
            outline = [left, top, right, top, right, bottom, left, bottom]
            entry = {"id": 10 * number + k, "image_id": number, "category_id": category, "segmentation": [outline]}
            content["annotations"].append(entry)
    (root / "coco" / "annotations" / "instances_val2014.json").write_text(json.dumps(content))


FSS_CLASSES = ("abe's_flyingfish", "accordion")
FSS_IDS = [class_id(fss_1000("test")[folder]) for folder in FSS_CLASSES]


def draw_fss(root: Path) -> None:
    """Three images with a mask of each of two test classes, smaller and larger than the input."""
    for place, name in enumerate(FSS_CLASSES):
        (root / "FSS-1000" / name).mkdir(parents=True)
        for k in range(1, 4):
            height, width = SHAPES[k] if place else (50, 61)
            ((top, left, bottom, right),) = boxes(10 * place + k, height, width, 1)
            mask = np.zeros((height, width, 3), dtype=np.uint8)
            mask[top:bottom, left:right] = 255
            picture(k, height, width).save(root / "FSS-1000" / name / f"{k}.jpg", format="PNG")
            Image.fromarray(mask).save(root / "FSS-1000" / name / f"{k}.png")


def answers(episodes: int, ways: int = 1, *, size: tuple[int, int] = (SIZE, SIZE), first: int = 0) -> torch.Tensor:
    """Scores [E, 1 + N, H, W] of an answer that knows nothing."""
    drawn = [np.random.RandomState(first + n).rand(1 + ways, *size) for n in range(episodes)]
    return torch.from_numpy(np.stack(drawn).astype(np.float32))


class Recites(Method):
    """Answers the questions in their order by prepared scores."""

    def __init__(self, scores: torch.Tensor):
        super().__init__()
        self._left = list(scores)

    def predict(self, episode: Episode) -> Prediction:
        return prediction_from_scores(torch.stack([self._left.pop(0) for _ in range(len(episode))]))


def fingerprint(maps: torch.Tensor | np.ndarray) -> int:
    """A number that changes with any pixel, and with two that are exchanged unless 251 k places apart."""
    flat = torch.as_tensor(maps).flatten().long()
    return int((flat * (torch.arange(len(flat)) % 251 + 1)).sum())


def everything(questions: EpisodeSet) -> Episode:
    (episode,) = questions.batches(len(questions))
    return episode


def panet_rows(maps: dict[str, np.ndarray], ways: int) -> list[EpisodeRow]:
    """Each image asked about a class it shows and, with two ways, about another that it may not show."""
    pairs, rows = pairs_in(maps), []
    for query, c in pairs:
        classes = (c, 1 + c % 5)[:ways]
        supports = tuple((next(i for i, of in reversed(pairs) if of == way and i != query),) for way in classes)
        rows.append(EpisodeRow(query, classes, supports))
    return rows


def score_of(images, rows, protocol: str, scores: torch.Tensor) -> FewShotMeter:
    questions = EpisodeSet(images, EpisodeManifest(tuple(rows)))
    return evaluate(Recites(scores), questions, protocol, batch_size=3, keep_bytes=0)


def counts_by_class(meter: FewShotMeter, classes=CLASSES) -> tuple[list[int], list[int]]:
    """Intersections and unions of the classes, in their order."""
    sums = [meter.ways[meter.ways[:, 1] == c, 2:].sum(0) for c in classes]
    return [int(s[0]) for s in sums], [int(s.sum()) for s in sums]


def shown(images, rows, protocol="square") -> Episode:
    return everything(EpisodeSet(images.under(PROTOCOLS[protocol]), EpisodeManifest(tuple(rows))))


def prints(episode: Episode) -> tuple[int, int]:
    return fingerprint(episode.query_labels), fingerprint(episode.support_masks == 1)


def root_of(images: LabelledImageSet) -> Path:
    return images.files[images.ids[0]].image.parents[3]


def label_maps_of(images: LabelledImageSet) -> Path:
    return images.files[images.ids[0]].labels[""].parent


@pytest.fixture(scope="module")
def voc(tmp_path_factory) -> tuple[LabelledImageSet, dict[str, np.ndarray]]:
    root = tmp_path_factory.mktemp("voc")
    maps = draw_voc(root)
    return open_images("pascal", root=root, size=SIZE), maps


@pytest.fixture
def coco(tmp_path, monkeypatch) -> LabelledImageSet:
    pytest.importorskip("pycocotools")
    monkeypatch.setattr("fsslib.data.cache.cache_root", lambda: tmp_path / "cache")
    draw_coco(tmp_path)
    return open_images("coco", root=tmp_path, part="val2014", size=SIZE)


# HSNet


def assert_hsnets(images, rows, classes, counts, ratios, golden) -> None:
    """Intersections and unions of `classes`, mIoU and FB-IoU in per cent, the prints of truth and masks are HSNet's."""
    meter = score_of(images, rows, "hsnet", answers(len(rows)))
    assert counts_by_class(meter, classes) == counts
    score, own = meter.compute(), shown(images, rows)
    assert (100 * score.miou, 100 * score.fb_iou) == pytest.approx(ratios, rel=1e-6)
    assert prints(shown(images, rows, "hsnet")) == golden
    assert all(found != theirs for found, theirs in zip(prints(own), golden))
    assert torch.equal(shown(images.under(PROTOCOLS["hsnet"]), rows).query_labels, own.query_labels)


def test_hsnets_truth_masks_and_counts_on_pascal(voc):
    rows = hsnet_pascal(pairs_in(voc[1]), fold=0, shots=2, episodes=40).rows
    assert (rows[2].query, rows[2].classes, rows[2].supports) == ("2007_000001", (1,), (("2007_000005",) * 2,))
    counts = [2580, 2541, 1786, 2174, 3270], [22986, 25573, 19802, 19957, 26287]
    assert_hsnets(voc[0], rows, CLASSES, counts, (10.702560424804688, 28.72820281982422), (304644261, 6559589))


def test_hsnets_truth_masks_and_counts_on_coco(coco):
    names, classes = coco.ids, [class_id(name) for name in COCO_NAMES.values()]
    rows = [EpisodeRow(names[n % 4], (classes[n % 3],), ((names[(n + 1 + n // 4) % 4],),)) for n in range(12)]
    counts = [3078, 1563, 1939], [13706, 12232, 12644]
    assert_hsnets(coco, rows, classes, counts, (16.856870651245117, 30.635435104370117), (1661242, 1535793))


def test_hsnets_truth_masks_and_counts_on_fss_1000(tmp_path):
    draw_fss(tmp_path)
    images, test = open_images("fss_1000", root=tmp_path, part="test", size=SIZE), dict(zip(FSS_CLASSES, FSS_IDS))
    rows = [EpisodeRow(f"{c}/{k}", (test[c],), ((f"{c}/{k % 3 + 1}",),)) for c in FSS_CLASSES for k in (1, 2, 3)]
    counts, classes = ([1341, 1367], [9322, 9351]), [test[c] for c in FSS_CLASSES]
    assert_hsnets(images, rows, classes, counts, (14.50204086303711, 29.975431442260742), (675326, 673412))


def test_the_painting_order_is_the_protocols_with_label_maps_of_its_own(coco, tmp_path):
    smaller, objects = coco.cached(tmp_path / "pixels"), coco_objects()
    later = smaller.under(PROTOCOLS["hsnet"])
    assert label_maps_of(smaller) != label_maps_of(later)
    ids = {category: class_id(name) for category, name in COCO_NAMES.items()}
    for (name, drawn), (height, width) in zip(objects.items(), SHAPES):
        expected = np.zeros((height, width), dtype=np.uint8)
        for category, (top, left, bottom, right) in drawn:
            expected[top:bottom, left:right] = ids[category]
        assert np.array_equal(later.original(name)[1], expected)
        assert not np.array_equal(smaller.original(name)[1], expected)
    some = smaller.restricted(smaller.ids[:2]).under(PROTOCOLS["hsnet"])
    assert label_maps_of(some) == label_maps_of(later)
    assert some.ids == smaller.ids[:2]
    assert torch.equal(some.original(some.ids[0])[1], later.original(some.ids[0])[1])
    assert torch.equal(later.under(PROTOCOLS["square"]).original(some.ids[0])[1], smaller.original(some.ids[0])[1])
    with pytest.raises(ValueError, match='on top lies the "smaller" or the "later" object; asked for \'first\''):
        paint(Picture("a.jpg", 2, 3), {}, "first")


def test_a_joined_set_has_cocos_painting_order_by_the_protocol_too(voc, coco):
    both = joined((voc[0], coco), name="both", domain="photo").without_classes((2,))
    seen, image_id = both.under(PROTOCOLS["hsnet"]), f"coco/{coco.ids[0]}"
    assert (seen.fit, seen.contents, seen.under(PROTOCOLS["hsnet"])) == ("corner", both.contents, seen)
    later = coco.under(PROTOCOLS["hsnet"]).original(coco.ids[0])[1]
    assert torch.equal(seen.original(image_id)[1], later)
    assert torch.equal(seen.under(PROTOCOLS["square"]).original(image_id)[1], coco.original(coco.ids[0])[1])
    assert not torch.equal(both.original(image_id)[1], later)


def test_crowds_are_void_here_and_objects_in_hsnets_order():
    pytest.importorskip("pycocotools")
    crowd = {"id": 1, "category_id": 7, "iscrowd": 1, "segmentation": {"size": [2, 3], "counts": [1, 4, 1]}}
    found = Picture("a.jpg", 2, 3, [crowd])
    assert paint(found, {7: 9}).tolist() == [[0, VOID, VOID], [VOID, VOID, 0]]
    assert paint(found, {7: 9}, "later").tolist() == [[0, 9, 9], [9, 9, 0]]


def test_original_sizes_are_hsnets_with_its_option_for_them(voc):
    """Answers are given at each query's own size, where HSNet's and our ways of getting there do not matter."""
    images, maps = voc
    rows = hsnet_pascal(pairs_in(maps), fold=0, shots=1, episodes=40).rows
    found = FewShotMeter(CLASSES)
    for n, row in enumerate(rows):
        scores = answers(1, size=maps[row.query].shape, first=n)
        found = found + score_of(images, [row], "original", scores)
    assert counts_by_class(found) == (
        [14185, 15493, 11541, 15172, 18404],
        [133882, 149234, 120909, 129392, 154297],
    )
    score = found.compute()
    assert (100 * score.miou, 100 * score.fb_iou) == pytest.approx((10.835057258605957, 28.843244552612305), rel=1e-6)


# PANet


def test_square_is_panets_resizing_and_its_score_of_one_way(voc):
    images, maps = open_images("pascal", root=root_of(voc[0]), size=PANETS), voc[1]
    rows, scores = panet_rows(maps, ways=1), answers(22, size=(PANETS, PANETS))
    episode = shown(images, rows)
    assert prints(episode) == (134052087, 1809292)
    means = [255 * episode.query_images[k].mean().item() for k in range(3)]
    assert means == pytest.approx([127.7770061728395, 127.7770061728395, 127.76073816872427], abs=0.02)
    score = score_of(images, rows, "square", scores).compute()
    ious = (0.11016271005601494, 0.1111111111111111, 0.08194178300939867, 0.10187332738626227, 0.12966668966945)
    assert score.per_class == pytest.approx(dict(zip(CLASSES, ious)), rel=1e-12)
    assert (score.miou, score.fb_iou) == pytest.approx((0.1069511242464474, 0.28718884403575495), rel=1e-12)
    assert score == score_of(images, rows, "panet", scores).compute()


def test_panets_score_of_two_ways_leaves_out_what_is_said_of_absent_ones(voc):
    images, maps = open_images("pascal", root=root_of(voc[0]), size=PANETS), voc[1]
    rows, scores = panet_rows(maps, ways=2), answers(22, 2, size=(PANETS, PANETS))
    meter = score_of(images, rows, "panet", scores)
    score = meter.compute()
    ious = (0.08554226942052011, 0.09041988246123345, 0.055487484684053914, 0.09401127746451488, 0.10107933506657213)
    assert score.per_class == pytest.approx(dict(zip(CLASSES, ious)), rel=1e-12)
    assert (score.miou, score.fb_iou) == pytest.approx((0.0853080498193789, 0.19994550438615266), rel=1e-12)
    assert (~shown(images, rows).presence).sum() == 14
    other = score_of(images, rows, "square", scores)
    assert torch.equal(other.ways, meter.ways)
    assert torch.equal(other.binary, meter.binary)
    assert other.compute().miou < score.miou
    meter.absent = "false_positives"
    assert meter.compute() == other.compute()


def test_a_background_that_is_not_there_is_left_out_as_an_absent_way_is():
    """PANet's Metric on the same six maps, printed as the others."""
    maps = [np.random.RandomState(n).randint(0, 3, (2, 16, 20)) for n in range(6)]
    meter = FewShotMeter([1, 2], "dropped")
    for n, (prediction, labels) in enumerate(maps):
        labels = np.where(labels == 0, (0, 1, VOID)[n % 3], labels)
        meter.update(*(torch.from_numpy(m)[None] for m in (prediction, labels)), torch.tensor([[1, 2]]))
    score = meter.compute()
    golden = (0.2374784110535406, 0.1942800788954635, 0.22301731907056932)
    assert (score.per_class[1], score.per_class[2], score.fb_iou) == pytest.approx(golden, rel=1e-12)


# PFENet

PFENET_ROWS = ((0, 3, 3), (1, 4, 3), (2, 5, 7), (3, 3, 0), (4, 2, 7), (5, 1, 6), (6, 2, 1), (7, 2, 4), (0, 5, 5))
"""Query, class and support of the release's episodes on these files, with its seed of 321."""

PFENET_COUNTS = """
2150 16235 12630 26715    1181 15269 13325 27413    2153 15423 10620 23890
3253 21043 14871 32661    2138 20032 16374 34268    1604 15551 12943 26890
245 13702 13106 26563    2930 19630 12706 29406    2584 16639 12226 26281"""
"""Intersection and union of foreground, then of background, in each episode."""


def pfenet_questions() -> tuple[EpisodeRow, ...]:
    return tuple(EpisodeRow(f"2007_{q:06d}", (c,), ((f"2007_{s:06d}",),)) for q, c, s in PFENET_ROWS)


def test_pfenets_inputs_keep_their_aspect_above_black_and_void(voc):
    episode = shown(voc[0], pfenet_questions(), "pfenet")
    assert [fingerprint(labels) for labels in episode.query_labels] == [
        *(64238281, 63864985, 9939522, 46307352, 62041431, 101389114, 45817224, 62044687, 64249666),
    ]
    assert [fingerprint(mask == 1) for mask in episode.support_masks] == [
        *(92427, 57035, 98386, 57586, 75862, 78747, 51849, 50421, 49822),
    ]
    assert [fingerprint(mask) for mask in episode.support_masks] == [
        *(46307352, 46271960, 62067211, 64238281, 62044687, 45886182, 63878349, 62041431, 101411302),
    ]
    # The release keeps fractions; images here have 8 bits.
    query = 255 * episode.query_images
    assert query[:3].mean((1, 2, 3)).tolist() == pytest.approx([82.665482, 83.148933, 124.100609], abs=0.02)
    assert query[0, :, 10, 20].tolist() == pytest.approx([179.041672, 189.916672, 111.479163], abs=0.501)
    assert query[1, :, 0, 0].tolist() == pytest.approx([82.465279, 60.819443, 106.097214], abs=0.501)
    assert query[1, :, 71, 71].tolist() == [0, 0, 0]
    assert query[2, :, 71, 71].tolist() == pytest.approx([70.359810, 117.389763, 108.808159], abs=0.501)


def test_pfenets_counts_at_each_querys_own_size(voc):
    meter = score_of(voc[0], pfenet_questions(), "pfenet", answers(9))
    tp, fp, fn, tn = meter.binary.T
    found = torch.stack([tp, tp + fp + fn, tn, tn + fp + fn], 1)
    # A pixel on the edge of a decision may fall either way on another processor.
    assert (found - torch.tensor([*map(int, PFENET_COUNTS.split())]).view(9, 4)).abs().max() <= 1
    score = meter.compute()
    # The release lists class c in place c - 1, and the first one last.
    assert [score.per_class[c] for c in (2, 3, 4, 5, 1)] == pytest.approx(
        [0.0996, 0.1449, 0.0773, 0.1477, 0.1031], abs=1e-4
    )
    assert (score.miou, score.fb_iou) == pytest.approx((0.11454705, 0.29317805), abs=1e-5)
    small = torch.zeros(3, 338, 500, dtype=torch.uint8)
    rows = (fitted(small, small[0], 473, "padded")[1] != VOID).any(1).sum()
    assert (rows, 338 * 473 // 500) == (312, 319), "seven rows of the input are cut, as `_at_original_size` says"
    with pytest.raises(ValueError, match=r"8 pixels at least.*found size 7"):
        fitted(small, small[0], 7, "padded")
    straight = score_of(voc[0], pfenet_questions(), "original", answers(9))
    assert (straight.binary - meter.binary).abs().max() > 100


# The toy world's own, which has no original


def test_toy_is_the_score_of_the_drawn_labels():
    world = ToyWorld(size=SIZE)
    pictures = {c: [f"c{c}-{number:06d}" for number in range(4)] for c in (1001, 1002)}
    rows = sample_rows(pictures, tuple(pictures), 5)
    said, truth = answers(5).argmax(1), everything(EpisodeSet(world, EpisodeManifest(tuple(rows)))).query_labels
    inter, union = counts_by_class(score_of(world, rows, "toy", answers(5)), pictures)
    for place, c in enumerate(pictures):
        own = torch.tensor([row.classes == (c,) for row in rows])
        assert inter[place] == ((said == 1) & (truth == 1))[own].sum()
        assert union[place] == (((said == 1) | (truth == 1)) & (truth != VOID))[own].sum()
    assert set(PROTOCOLS) == {"toy", "square", "original", "hsnet", "panet", "pfenet"}, "each has a test here"


# What HSNet's truth costs, on real label maps


def real_folder(name: str) -> Path:
    if not os.environ.get("FSSLIB_DATA"):
        pytest.skip("FSSLIB_DATA is not set: no real label maps")
    folder = Path(os.environ["FSSLIB_DATA"]) / name
    if not folder.is_dir():
        pytest.skip(f"no {name} below FSSLIB_DATA")
    return folder


def assert_docs_say(*sentences: str) -> None:
    words = " ".join((project_root() / "docs" / "data.md").read_text(encoding="utf-8").split())
    assert [sentence for sentence in sentences if sentence not in words] == []


@pytest.mark.realdata
def test_docs_say_what_a_label_of_the_corner_costs():
    paths = sorted((real_folder("VOCdevkit") / "VOC2012" / "SegmentationClassAug").glob("*.png"))
    if len(paths) != 566:
        pytest.skip(f"FSSLIB_DATA holds {len(paths)} VOC images, not the subset of 566 these figures are of")
    other, meters = 0, {fit: FewShotMeter(range(1, 21)) for fit in ("square", "corner")}
    for path in paths:
        labels = read_label_map(path)
        image = labels.expand(3, -1, -1)
        truths = {fit: fitted(image, labels, 400, fit)[1].long()[None] for fit in meters}
        other += int((truths["square"] != truths["corner"]).sum())
        for c in sorted(set(labels.unique().tolist()) - {0, VOID}):
            # The sharpest answer there is: the object's own outline, brought to the input as scores are.
            scores = F.interpolate((labels == c)[None, None].float(), (400, 400), mode="bilinear")
            for fit, meter in meters.items():
                truth = torch.where(truths[fit] == VOID, VOID, (truths[fit] == c).long())
                meter.update((scores[0] > 0.5).long(), truth, torch.tensor([[c]]))
    ours, theirs = (f"{100 * meters[fit].compute().miou:.1f}" for fit in ("square", "corner"))
    assert_docs_say(
        f"{100 * other / (566 * 400**2):.2f} % of the pixels of the 566 VOC images",
        f"scores {theirs} mIoU in place of {ours}",
    )


@pytest.mark.realdata
def test_docs_say_what_later_objects_on_top_cost():
    pytest.importorskip("pycocotools")
    annotations = real_folder("coco") / "annotations" / "instances_train2017.json"
    pictures, ids = read_instances(annotations)
    if len(pictures) != 128:
        pytest.skip(f"FSSLIB_DATA holds {len(pictures)} COCO images, not the subset of 128 these figures are of")
    other = [paint(picture, ids, "smaller") != paint(picture, ids, "later") for picture in pictures.values()]
    share = sum(map(np.sum, other)) / sum(map(np.size, other))
    worst = max(map(np.mean, other))
    assert_docs_say(f"{100 * share:.2f} % of the pixels of the 128 COCO images", f"{100 * worst:.0f} % of the worst")

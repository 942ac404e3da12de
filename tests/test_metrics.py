"""The meters against golden values and NumPy oracles."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from fsslib.episodes import VOID
from fsslib.metrics import FewShotMeter, SegmentationMeter, protocol_named
from fsslib.paths import project_root

SEEDS = st.integers(0, 2**31 - 1)


def few_shot(prediction, labels, class_ids, presence=None, *, classes=None, absent="false_positives", meter=None):
    """A meter (of the classes in `class_ids`, if no others are named) that has seen these maps, arrays or tensors."""
    ids = torch.as_tensor(class_ids)
    meter = meter or FewShotMeter(classes or dict.fromkeys(ids.flatten().tolist()), absent)
    meter.update(*map(torch.as_tensor, (prediction, labels)), ids, presence)
    return meter


def fixed(prediction, labels, classes, meter=None):
    meter = meter or SegmentationMeter(classes)
    meter.update(*map(torch.as_tensor, (prediction, labels)))
    return meter


def drawn(seed, images, answers, shape=(4, 5)):
    """Predictions and labels below `answers`, some of these void, and of each image the classes of two ways."""
    rng = np.random.RandomState(seed)
    prediction = rng.randint(0, answers, (images, *shape))
    labels = rng.choice([*range(answers), VOID], (images, *shape))
    labels[0, 0, 0] = rng.randint(answers)
    return prediction, labels, np.stack([rng.permutation(4)[:2] for _ in range(images)])


def counts(meter):
    names = ("ways", "binary", "exact") if isinstance(meter, FewShotMeter) else ("confusion", "images")
    return {name: getattr(meter, name).tolist() for name in names}


MAKE = {
    "few-shot": lambda p, y, ids, meter=None: few_shot(p, y, ids, classes=range(4), meter=meter),
    "fixed": lambda p, y, _, meter=None: fixed(p, y, 3, meter),
}
both = pytest.mark.parametrize("kind", MAKE)

# What both do


@both
@settings(deadline=None, max_examples=20)
@given(SEEDS, st.integers(1, 4))
def test_batches_of_any_size_give_the_same_meter(kind, seed, cut):
    maps = drawn(seed, 5, 3)
    whole, meter = MAKE[kind](*maps), None
    for rows in (slice(cut), slice(cut, None)):
        meter = MAKE[kind](*(m[rows] for m in maps), meter)
    assert counts(meter) == counts(whole)
    assert meter.compute() == whole.compute()
    if kind == "few-shot":
        left, right = (MAKE[kind](*(m[rows] for m in maps)) for rows in (slice(cut), slice(cut, None)))
        assert counts(left + right) == counts(whole)
        assert len(left.binary) == cut
        with pytest.raises(ValueError, match="other rules for absent ways: 'false_positives' and 'dropped'"):
            left + FewShotMeter([5], "dropped")


@both
def test_void_changes_no_count_and_a_void_image_is_counted_as_one(kind):
    prediction, labels, ids = drawn(5, 2, 3)
    meter, other = (
        MAKE[kind](p, labels, ids) for p in (prediction, np.where(labels == VOID, 2 - prediction, prediction))
    )
    assert counts(meter) == counts(other)
    before, after = meter.compute(), MAKE[kind](prediction, labels * 0 + VOID, ids, meter).compute()
    assert after.per_class == before.per_class
    assert after.miou == before.miou
    assert vars(after).get("episodes", vars(after).get("images")) == 4


@both
def test_counters_are_int64_and_exact_beyond_float32(kind):
    labels = torch.ones(1, 4100, 4100, dtype=torch.int64)
    meter, one = MAKE[kind](labels, labels, [[1]]), labels[:, :1, :1]
    MAKE[kind](one, one, [[1]], meter)
    seen = meter.ways[:, 2] if kind == "few-shot" else meter.confusion[1]
    assert seen.dtype == torch.int64
    assert seen.sum().item() == 4100 * 4100 + 1 > 2**24


@both
def test_without_a_labelled_pixel_there_is_no_score(kind):
    maps, ids = torch.ones(2, 3, 4, dtype=torch.int64), torch.tensor([[0], [1]])
    for images, meter in ((0, MAKE[kind](maps[:0], maps[:0], ids[:0])), (2, MAKE[kind](maps, maps * VOID, ids))):
        for score in (meter.compute, meter.without_looking):
            with pytest.raises(ValueError, match=rf"has seen no labelled pixel \({images} (episodes|images)\)"):
                score()


@both
@pytest.mark.parametrize(
    ("prediction", "labels", "said"),
    [
        ([[0, 7], [0, 0]], [[0, 0], [0, 0]], r"Predictions must lie in 0\.\.2.*; found 0\.\.7"),
        ([[0, -1], [0, 0]], [[0, 0], [0, 0]], r"Predictions must lie in 0\.\.2.*; found -1\.\.0"),
        ([[0, VOID], [0, 0]], [[0, VOID], [0, 0]], r"Predictions must lie in 0\.\.2.*; found 0\.\.255"),
        ([[0, 0], [0, 0]], [[0, 0, 0], [0, 0, 0]], r"shape|labels"),
    ],
)
def test_a_refused_batch_is_named_and_leaves_no_trace(kind, prediction, labels, said):
    meter = MAKE[kind](np.zeros((0, 2, 2), int), np.zeros((0, 2, 2), int), np.zeros((0, 2), int))
    before, ids = counts(meter), () if kind == "fixed" else (torch.tensor([[0, 1]]),)
    with pytest.raises((ValueError, TypeCheckError), match=said):
        meter.update(torch.tensor([prediction]), torch.tensor([labels]), *ids)
    assert counts(meter) == before


# Few-shot

GOLDEN = [(0, 50, 50, 0, 300), (0, 1, 0, 9, 390), (1, 30, 10, 20, 340)]
"""Class, TP, FP, FN, TN of three episodes of 400 pixels."""


def test_golden_example():
    maps = [
        [[1] * tp + [1] * fp + [0] * (fn + tn), [1] * tp + [0] * fp + [1] * fn + [0] * tn]
        for _, tp, fp, fn, tn in GOLDEN
    ]
    prediction, labels = torch.tensor(maps).view(3, 2, 20, 20).unbind(1)
    meter = few_shot(prediction, labels, [[row[0]] for row in GOLDEN])
    score = meter.compute()
    assert score.per_class == pytest.approx({0: 0.463636, 1: 0.5}, abs=1e-6)
    assert score.miou == pytest.approx(0.481818, abs=1e-6)
    assert score.fb_iou == pytest.approx(0.698468, abs=1e-6)
    assert score.episodes == 3


def oracle(prediction, labels, class_ids):
    """Sums per class over episodes and ways, pixel by pixel in plain Python."""
    counted, binary = {}, np.zeros(4, dtype=int)
    for p, y, ids in zip(prediction, labels, class_ids):
        pixels = [(a, b) for a, b in zip(p.ravel(), y.ravel()) if b != VOID]
        for way, c in enumerate(ids, start=1):
            row = counted.setdefault(int(c), np.zeros(3, dtype=int))
            for a, b in pixels:
                row += [a == way and b == way, a == way and b != way, a != way and b == way]
        for a, b in pixels:
            binary += [a > 0 and b > 0, a > 0 and b == 0, a == 0 and b > 0, a == 0 and b == 0]
    iou = {c: tp / (tp + fp + fn) if tp + fp + fn else 1.0 for c, (tp, fp, fn) in counted.items()}
    tp, fp, fn, tn = binary
    return iou, sum(part / (part + fp + fn) if part + fp + fn else 1.0 for part in (tp, tn)) / 2


@settings(deadline=None, max_examples=40)
@given(SEEDS, st.integers(1, 4), st.integers(1, 3))
def test_agrees_with_a_numpy_oracle(seed, batch, ways):
    prediction, labels, _ = drawn(seed, batch, ways + 1)
    ids = np.stack([np.random.RandomState(seed + k).permutation(5)[:ways] for k in range(batch)])
    score = few_shot(prediction, labels, ids, classes=range(5)).compute()
    counted = [k for k in range(batch) if (labels[k] != VOID).any()]
    iou, fb = oracle(prediction[counted], labels[counted], ids[counted])
    assert {c: v for c, v in score.per_class.items() if v is not None} == pytest.approx(iou)
    assert score.miou == pytest.approx(np.mean(list(iou.values())))
    assert score.fb_iou == pytest.approx(fb)
    assert score.per_class.keys() == set(range(5))


def test_an_absent_way_adds_its_false_positives_to_its_class():
    labels = torch.zeros(1, 2, 5, dtype=torch.int64)
    labels[0, 0] = 1
    prediction = labels.clone()
    prediction[0, 1, :3] = 2
    score = few_shot(prediction, labels, [[7, 8]], classes=[7, 8, 9]).compute()
    assert score.per_class == {7: 1.0, 8: 0.0, 9: None}
    assert (score.miou, score.exact_ratio) == (0.5, 0.0)


@pytest.mark.parametrize("shown", [0, 1])
def test_what_is_asked_and_neither_there_nor_claimed_is_right_in_every_ratio(shown):
    """Of an episode of background alone the foreground, of one of foreground alone the background."""
    maps = torch.full((1, 3, 4), shown)
    meter = few_shot(maps, maps, [[5]])
    score = meter.compute()
    assert (score.miou, score.fb_iou, score.per_class) == (1, 1, {5: 1})
    assert few_shot(1 - maps, maps, [[5]], meter=meter).compute().fb_iou == 0.25


def test_an_episode_without_a_labelled_pixel_says_nothing_of_its_class():
    maps = torch.ones(2, 3, 4, dtype=torch.int64)
    labels = maps.clone()
    labels[0, 0], labels[1] = 0, VOID
    meter, other = (few_shot(maps[:n], labels[:n], [[5], [6]][:n], classes=[5, 6]) for n in (2, 1))
    assert meter.compute().per_class == other.compute().per_class == {5: 8 / 12, 6: None}
    assert meter.compute().fb_iou == other.compute().fb_iou == 8 / 24
    assert meter.without_looking() == other.without_looking() == pytest.approx(8 / 12)


def test_no_committed_score_rests_on_a_ratio_of_nothing():
    """Such a ratio is 1, and was 0 or not a number before: no class of any result has 1, none is missing."""
    found = [
        score["per_class"].values()
        for path in (project_root() / "results").glob("*.json")
        for run in json.loads(path.read_text()).get("runs", ())
        for score in run.get("scores", {}).values()
        if "fb_iou" in score
    ]
    assert len(found) > 1000
    assert all(iou is not None and iou < 1 for ious in found for iou in ious)


def test_absent_ways_have_two_rules():
    zeros = torch.zeros(1, 2, 5, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"No way is in its query \(1 episodes\)"):
        few_shot(zeros + 1, zeros, [[7, 8]], absent="dropped").compute()
    for absent in ("drop", "", "false positives"):
        with pytest.raises(ValueError, match=f'"false_positives" or "dropped"; found {absent!r}'):
            FewShotMeter([5], absent)


def test_exact_ratio_counts_right_presence_claims():
    labels, marked = torch.tensor([[[1, 0]], [[0, 0]]]), torch.tensor([[[1, 1]], [[0, 1]]])
    assert few_shot(marked, labels, [[3], [3]]).compute().exact_ratio == 0.5
    told = few_shot(marked, labels, [[3], [3]], torch.tensor([[True], [False]]))
    assert told.compute().exact_ratio == 1.0
    few_shot(labels[:1], labels[:1] * 0 + VOID, [[3]], torch.tensor([[True]]), meter=told)
    assert (told.compute().exact_ratio, told.compute().episodes) == (1.0, 3), "of a void episode no claim is wrong"


def test_the_floor_is_the_score_of_marking_everything():
    labels, ids = torch.tensor([[[1, 0, 0, VOID]], [[1, 1, 0, 0]], [[0, 0, 1, 1]]]), [[4], [4], [6]]
    meter, marked = (few_shot(torch.full_like(labels, answer), labels, ids) for answer in (0, 1))
    assert meter.without_looking() == pytest.approx(marked.compute().miou)
    assert meter.without_looking() == pytest.approx((3 / 7 + 1 / 2) / 2)


def test_classes_and_protocols_that_are_not_there_are_named():
    zeros = torch.zeros(1, 2, 2, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"\[5\] are not among the meter's \[1\]"):
        few_shot(zeros, zeros, [[5]], classes=[1])
    with pytest.raises(ValueError, match="toy, square"):
        protocol_named("pfnet")


# A fixed list of classes


def segmentation_oracle(prediction, labels, count):
    """IoU per class (None where the truth has none of it) and pixel accuracy, pixel by pixel in plain Python."""
    right, true, predicted = (np.zeros(count, dtype=int) for _ in range(3))
    for p, y in zip(prediction.ravel(), labels.ravel()):
        if y != VOID:
            true[y] += 1
            predicted[p] += 1
            right[y] += p == y
    ious = [right[c] / (true[c] + predicted[c] - right[c]) if true[c] else None for c in range(count)]
    return ious, right.sum() / true.sum()


@settings(deadline=None, max_examples=40)
@given(SEEDS, st.integers(1, 5), st.integers(1, 7))
def test_segmentation_agrees_with_a_numpy_oracle(seed, images, count):
    prediction, labels, _ = drawn(seed, images, count, shape=(3, 3))
    meter = fixed(prediction, labels, count)
    ious, accuracy = segmentation_oracle(prediction, labels, count)
    score, seen = meter.compute(), [c for c in range(count) if ious[c] is not None]
    assert score.per_class == pytest.approx(dict(enumerate(ious)))
    assert score.miou == pytest.approx(np.mean([ious[c] for c in seen]))
    assert score.pixel_accuracy == pytest.approx(accuracy)
    assert score.images == images
    assert meter.miou_of(seen[:2]) == pytest.approx(np.mean([ious[c] for c in seen[:2]]))


def test_the_confusion_matrix_and_the_counts_of_each_image():
    prediction, labels, _ = drawn(3, 4, 5)
    meter, valid = fixed(prediction, labels, 5), labels != VOID
    expected = np.zeros((5, 5), dtype=int)
    np.add.at(expected, (labels[valid], prediction[valid]), 1)
    assert np.array_equal(meter.confusion.numpy(), expected)
    for n, c in np.ndindex(4, 5):
        true, said = labels[n] == c, (prediction[n] == c) & valid[n]
        assert meter.images[n, c].tolist() == [(true & said).sum(), true.sum(), said.sum()]
    assert meter.images.dtype == torch.int64


def test_segmentation_by_hand_with_names():
    labels, prediction = [[[0, 0, 0, 1], [1, 1, VOID, VOID]]], [[[0, 0, 2, 1], [1, 0, 2, 1]]]
    meter = fixed(prediction, labels, {0: "road", 1: "car", 2: "sky"})
    score = meter.compute()
    # Road: 2 of 3 found, 1 false; car: 2 of 3 found. Sky is predicted but nowhere true, so it has no IoU.
    assert score.per_class == {"road": 2 / 4, "car": 2 / 3, "sky": None}
    assert score.miou == pytest.approx((2 / 4 + 2 / 3) / 2)
    assert score.pixel_accuracy == pytest.approx(4 / 6)
    assert meter.miou_of([1]) == meter.miou_of([1, 2]) == pytest.approx(2 / 3)


def test_the_floor_of_a_segmenter_is_the_score_of_the_commonest_class():
    _, labels, _ = drawn(8, 3, 4)
    labels[labels == 3] = VOID
    commonest = np.bincount(labels[labels != VOID]).argmax()
    meter, blind = (fixed(p, labels, 4) for p in (np.where(labels == VOID, 0, labels), 0 * labels + commonest))
    assert meter.compute().miou == 1
    assert meter.without_looking() == pytest.approx(blind.compute().miou)


def test_segmentation_errors_say_what_was_found():
    zeros = torch.zeros(1, 2, 2, dtype=torch.int64)
    meter = fixed(zeros, zeros + VOID, 3)
    with pytest.raises(ValueError, match=r"no labelled pixel \(1 images\)"):
        meter.miou_of([0])
    with pytest.raises(ValueError, match=r"Labels must lie in 0\.\.2, or 255 for void; found -1\.\.0"):
        meter.update(zeros, torch.tensor([[[0, VOID], [-1, 0]]]))
    meter.update(zeros, zeros)
    with pytest.raises(ValueError, match=r"\[3, 7\] are not among the meter's 0\.\.2"):
        meter.miou_of([0, 7, 3])
    with pytest.raises(ValueError, match=r"any of \[1, 2\]: no mean IoU"):
        meter.miou_of([1, 2])
    for classes, message in (
        ({1: "a", 2: "b"}, r"found \[1, 2\]"),
        (0, "at least one"),
        ({0: "a", 1: "a"}, "same name"),
    ):
        with pytest.raises(ValueError, match=message):
            SegmentationMeter(classes)

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

GOLDEN = [(0, 50, 50, 0, 300), (0, 1, 0, 9, 390), (1, 30, 10, 20, 340)]
"""Class, TP, FP, FN, TN of three episodes of 400 pixels."""


def maps_of(tp, fp, fn, tn):
    prediction = torch.tensor([1] * tp + [1] * fp + [0] * fn + [0] * tn).view(1, 20, -1)
    labels = torch.tensor([1] * tp + [0] * fp + [1] * fn + [0] * tn).view(1, 20, -1)
    return prediction, labels


def golden_meter(batch_size):
    pairs = [maps_of(*row[1:]) for row in GOLDEN]
    meter = FewShotMeter([0, 1])
    for start in range(0, 3, batch_size):
        batch = slice(start, start + batch_size)
        ids = torch.tensor([[row[0]] for row in GOLDEN[batch]])
        meter.update(torch.cat([p for p, _ in pairs[batch]]), torch.cat([y for _, y in pairs[batch]]), ids)
    return meter


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_golden_example_in_any_batch_size(batch_size):
    score = golden_meter(batch_size).compute()
    assert score.per_class == pytest.approx({0: 0.463636, 1: 0.5}, abs=1e-6)
    assert score.miou == pytest.approx(0.481818, abs=1e-6)
    assert score.fb_iou == pytest.approx(0.698468, abs=1e-6)
    assert score.episodes == 3


def test_counters_are_int64_and_exact_beyond_float32():
    labels = torch.ones(1, 4100, 4100, dtype=torch.int64)
    meter = FewShotMeter([1])
    meter.update(labels, labels, torch.tensor([[1]]))
    assert meter.ways.dtype == torch.int64
    assert meter.ways[0, 2].item() == 4100 * 4100 > 2**24


def oracle(prediction, labels, class_ids):
    """Sums per class over episodes and ways, pixel by pixel in plain Python."""
    counts, binary = {}, np.zeros(4, dtype=int)
    for p, y, ids in zip(prediction, labels, class_ids):
        for way, c in enumerate(ids, start=1):
            row = counts.setdefault(int(c), np.zeros(3, dtype=int))
            for a, b in zip(p.ravel(), y.ravel()):
                if b != VOID:
                    row += [a == way and b == way, a == way and b != way, a != way and b == way]
        for a, b in zip(p.ravel(), y.ravel()):
            if b != VOID:
                binary += [a > 0 and b > 0, a > 0 and b == 0, a == 0 and b > 0, a == 0 and b == 0]
    iou = {c: tp / (tp + fp + fn) if tp + fp + fn else 1.0 for c, (tp, fp, fn) in counts.items()}
    tp, fp, fn, tn = binary
    return iou, sum(part / (part + fp + fn) if part + fp + fn else 1.0 for part in (tp, tn)) / 2


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31 - 1), st.integers(1, 4), st.integers(1, 3))
def test_agrees_with_a_numpy_oracle(seed, batch, ways):
    rng = np.random.RandomState(seed)
    prediction = rng.randint(0, ways + 1, (batch, 4, 5))
    labels = rng.choice([*range(ways + 1), VOID], (batch, 4, 5))
    ids = np.stack([rng.permutation(5)[:ways] for _ in range(batch)])
    meter = FewShotMeter(range(5))
    meter.update(*(torch.from_numpy(a) for a in (prediction, labels, ids)))
    iou, fb = oracle(prediction, labels, ids)
    score = meter.compute()
    assert {c: v for c, v in score.per_class.items() if v is not None} == pytest.approx(iou)
    assert score.fb_iou == pytest.approx(fb)
    assert set(score.never_seen) == set(range(5)) - set(iou)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31 - 1), st.integers(1, 6))
def test_batches_and_shards_give_the_same_meter(seed, cut):
    rng = np.random.RandomState(seed)
    prediction, labels = torch.from_numpy(rng.randint(0, 3, (7, 6, 6))), torch.from_numpy(rng.randint(0, 3, (7, 6, 6)))
    ids = torch.from_numpy(np.stack([rng.permutation(4)[:2] for _ in range(7)]))
    whole, left, right = (FewShotMeter(range(4)) for _ in range(3))
    whole.update(prediction, labels, ids)
    left.update(prediction[:cut], labels[:cut], ids[:cut])
    right.update(prediction[cut:], labels[cut:], ids[cut:])
    merged = left + right
    assert torch.equal(merged.ways, whole.ways)
    assert merged.compute() == whole.compute()


def test_void_pixels_change_no_counter():
    prediction, labels = maps_of(10, 5, 5, 80)
    meter, other = FewShotMeter([1]), FewShotMeter([1])
    voided = labels.clone()
    voided[0, 0] = VOID
    meter.update(prediction, voided, torch.tensor([[1]]))
    flipped = prediction.clone()
    flipped[0, 0] = 1 - flipped[0, 0]
    other.update(flipped, voided, torch.tensor([[1]]))
    assert torch.equal(meter.ways, other.ways)
    assert torch.equal(meter.binary, other.binary)
    assert meter.binary.sum().item() == 100 - 5


def test_an_absent_way_adds_its_false_positives_to_its_class():
    labels = torch.zeros(1, 2, 5, dtype=torch.int64)
    labels[0, 0] = 1
    prediction = labels.clone()
    prediction[0, 1, :3] = 2
    meter = FewShotMeter([7, 8, 9])
    meter.update(prediction, labels, torch.tensor([[7, 8]]))
    score = meter.compute()
    assert score.per_class == {7: 1.0, 8: 0.0, 9: None}
    assert score.miou == 0.5
    assert score.never_seen == (9,)
    assert score.exact_ratio == 0.0


@pytest.mark.parametrize("shown", [0, 1])
def test_what_is_asked_and_neither_there_nor_claimed_is_right_in_every_ratio(shown):
    """Of an episode of background alone the foreground, of one of foreground alone the background."""
    maps = torch.full((1, 3, 4), shown)
    meter = FewShotMeter([5])
    meter.update(maps, maps, torch.tensor([[5]]))
    score = meter.compute()
    assert (score.miou, score.fb_iou, score.per_class) == (1, 1, {5: 1})
    meter.update(1 - maps, maps, torch.tensor([[5]]))
    assert meter.compute().fb_iou == 0.25


@pytest.mark.parametrize("absent", ["false_positives", "dropped"])
def test_without_a_labelled_pixel_neither_meter_has_a_score(absent):
    maps = torch.ones(2, 3, 4, dtype=torch.int64)
    few_shot, fixed = FewShotMeter([5, 6], absent), SegmentationMeter(2)
    few_shot.update(maps, maps * VOID, torch.tensor([[5], [6]]))
    fixed.update(maps, maps * VOID)
    for meter, seen in ((few_shot, "2 episodes"), (fixed, "2 images")):
        for score in (meter.compute, meter.without_looking):
            with pytest.raises(ValueError, match=rf"has seen no labelled pixel \({seen}\)"):
                score()


def test_an_episode_without_a_labelled_pixel_says_nothing_of_its_class():
    maps = torch.ones(2, 3, 4, dtype=torch.int64)
    meter, other = FewShotMeter([5, 6]), FewShotMeter([5, 6])
    labels = maps.clone()
    labels[0, 0], labels[1] = 0, VOID
    meter.update(maps, labels, torch.tensor([[5], [6]]))
    other.update(maps[:1], labels[:1], torch.tensor([[5]]))
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


def test_absent_ways_that_are_dropped_leave_no_score_where_all_are():
    labels = torch.zeros(1, 2, 5, dtype=torch.int64)
    meter = FewShotMeter([7, 8], "dropped")
    meter.update(labels + 1, labels, torch.tensor([[7, 8]]))
    with pytest.raises(ValueError, match=r"No way is in its query \(1 episodes\)"):
        meter.compute()


@pytest.mark.parametrize("absent", ["drop", "", "false positives"])
def test_absent_ways_have_two_rules_and_meters_of_both_do_not_add_up(absent):
    with pytest.raises(ValueError, match=f'"false_positives" or "dropped"; found {absent!r}'):
        FewShotMeter([5], absent)
    with pytest.raises(ValueError, match="other rules for absent ways: 'dropped' and 'false_positives'"):
        FewShotMeter([5], "dropped") + FewShotMeter([5])
    assert (FewShotMeter([5], "dropped") + FewShotMeter([6], "dropped")).absent == "dropped"


def test_exact_ratio_counts_right_presence_claims():
    labels = torch.tensor([[[1, 0]], [[0, 0]]])
    meter = FewShotMeter([3])
    meter.update(torch.tensor([[[1, 1]], [[0, 1]]]), labels, torch.tensor([[3], [3]]))
    assert meter.compute().exact_ratio == 0.5
    told = FewShotMeter([3])
    told.update(torch.tensor([[[1, 1]], [[0, 1]]]), labels, torch.tensor([[3], [3]]), torch.tensor([[True], [False]]))
    assert told.compute().exact_ratio == 1.0
    told.update(labels[:1], labels[:1] * 0 + VOID, torch.tensor([[3]]), torch.tensor([[True]]))
    assert (told.compute().exact_ratio, told.compute().episodes) == (1.0, 3), "of a void episode no claim is wrong"


def test_the_floor_is_the_score_of_marking_everything():
    labels = torch.tensor([[[1, 0, 0, VOID]], [[1, 1, 0, 0]], [[0, 0, 1, 1]]])
    ids, everything = torch.tensor([[4], [4], [6]]), torch.ones_like(labels)
    meter, marked = FewShotMeter([4, 6]), FewShotMeter([4, 6])
    meter.update(torch.zeros_like(labels), labels, ids)
    marked.update(everything, labels, ids)
    assert meter.without_looking() == pytest.approx(marked.compute().miou)
    assert meter.without_looking() == pytest.approx((3 / 7 + 1 / 2) / 2)
    with pytest.raises(ValueError, match=r"no labelled pixel \(0 episodes\)"):
        FewShotMeter([1]).without_looking()


def test_errors_say_what_was_found():
    meter = FewShotMeter([1])
    with pytest.raises(ValueError, match=r"no labelled pixel \(0 episodes\)"):
        meter.compute()
    zeros = torch.zeros(1, 2, 2, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"\[5\] are not among"):
        meter.update(zeros, zeros, torch.tensor([[5]]))
    with pytest.raises(ValueError, match=r"0\.\.1.*0\.\.3"):
        meter.update(torch.tensor([[[0, 3], [0, 0]]]), zeros, torch.tensor([[1]]))
    with pytest.raises((ValueError, TypeCheckError), match=r"shape|labels"):
        meter.update(zeros[:, :1], zeros, torch.tensor([[1]]))
    with pytest.raises(ValueError, match="toy, square"):
        protocol_named("pfnet")


# A fixed list of classes


def segmentation_oracle(prediction, labels, count):
    """IoU per class (None where the truth has none of it) and pixel accuracy, pixel by pixel in plain Python."""
    both, true, predicted, right, total = *(np.zeros(count, dtype=int) for _ in range(3)), 0, 0
    for p, y in zip(prediction.ravel(), labels.ravel()):
        if y != VOID:
            true[y] += 1
            predicted[p] += 1
            both[y] += p == y
            right, total = right + (p == y), total + 1
    ious = [both[c] / (true[c] + predicted[c] - both[c]) if true[c] else None for c in range(count)]
    return ious, right / total


def streets(seed, images, count, shape=(4, 5)):
    rng = np.random.RandomState(seed)
    prediction = rng.randint(0, count, (images, *shape))
    labels = rng.choice([*range(count), VOID], (images, *shape))
    labels[0, 0, 0] = rng.randint(count)
    return prediction, labels


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31 - 1), st.integers(1, 5), st.integers(1, 7), st.integers(1, 5))
def test_segmentation_agrees_with_a_numpy_oracle_in_any_batch_size(seed, images, count, batch_size):
    prediction, labels = streets(seed, images, count, shape=(3, 3))
    meter = SegmentationMeter(count)
    for start in range(0, images, batch_size):
        batch = slice(start, start + batch_size)
        meter.update(torch.from_numpy(prediction[batch]), torch.from_numpy(labels[batch]))
    ious, accuracy = segmentation_oracle(prediction, labels, count)
    score = meter.compute()
    assert score.per_class == pytest.approx(dict(enumerate(ious)))
    seen = [iou for iou in ious if iou is not None]
    assert score.miou == pytest.approx(sum(seen) / len(seen))
    assert score.pixel_accuracy == pytest.approx(accuracy)
    assert score.images == images
    assert score.never_seen == tuple(c for c in range(count) if ious[c] is None)
    some = [c for c in range(count) if ious[c] is not None][:2]
    assert meter.miou_of(some) == pytest.approx(np.mean([ious[c] for c in some]))


def test_the_confusion_matrix_and_the_counts_of_each_image():
    prediction, labels = streets(3, 4, 5)
    meter = SegmentationMeter(5)
    meter.update(torch.from_numpy(prediction), torch.from_numpy(labels))
    valid = labels != VOID
    expected = np.zeros((5, 5), dtype=int)
    np.add.at(expected, (labels[valid], prediction[valid]), 1)
    assert np.array_equal(meter.confusion.numpy(), expected)
    assert meter.images.shape == (4, 5, 3)
    for n in range(4):
        for c in range(5):
            own = labels[n] == c, (prediction[n] == c) & valid[n]
            assert meter.images[n, c].tolist() == [(own[0] & own[1]).sum(), own[0].sum(), own[1].sum()]
    assert torch.equal(meter.images.sum(0)[:, 1], meter.confusion.sum(1))
    assert torch.equal(meter.images.sum(0)[:, 2], meter.confusion.sum(0))
    assert meter.confusion.dtype == meter.images.dtype == torch.int64


def test_segmentation_by_hand_with_names():
    labels = torch.tensor([[[0, 0, 0, 1], [1, 1, VOID, VOID]]])
    prediction = torch.tensor([[[0, 0, 2, 1], [1, 0, 2, 1]]])
    meter = SegmentationMeter({0: "road", 1: "car", 2: "sky"})
    meter.update(prediction, labels)
    score = meter.compute()
    # Road: 2 of 3 found, 1 false; car: 2 of 3 found. Sky is predicted but nowhere true, so it has no IoU.
    assert score.per_class == {"road": 2 / 4, "car": 2 / 3, "sky": None}
    assert score.miou == pytest.approx((2 / 4 + 2 / 3) / 2)
    assert score.pixel_accuracy == pytest.approx(4 / 6)
    assert score.never_seen == ("sky",)
    assert meter.miou_of([1]) == pytest.approx(2 / 3)
    assert meter.miou_of([1, 2]) == pytest.approx(2 / 3)


@pytest.mark.parametrize("learnt", [False, True])
def test_sixteen_classes_are_scored_by_themselves(learnt):
    """mIoU of 19 classes x 19 / 16 is their mean only where the three that the source lacks score 0."""
    labels = torch.arange(19).repeat_interleave(4).view(1, 4, 19)
    absent, prediction = (9, 14, 16), labels.clone()
    prediction[labels == 3] = 4
    if not learnt:
        for c in absent:
            prediction[labels == c] = c - 1
    meter = SegmentationMeter(19)
    meter.update(prediction, labels)
    sixteen = [c for c in range(19) if c not in absent]
    ious = [meter.compute().per_class[c] for c in sixteen]
    assert meter.miou_of(sixteen) == pytest.approx(np.mean(ious))
    shortcut = meter.compute().miou * 19 / 16
    assert (shortcut == pytest.approx(meter.miou_of(sixteen))) is not learnt
    assert (shortcut > 1) is learnt


def test_one_mean_over_all_images_is_not_a_mean_of_means():
    meter = SegmentationMeter(2)
    meter.update(torch.tensor([[[0, 0, 0, 0]], [[0, 0, 0, 1]]]), torch.tensor([[[0, 0, 0, 0]], [[1, 1, 1, 1]]]))
    assert meter.compute().per_class == {0: 4 / 7, 1: 1 / 4}


def test_void_changes_no_count_and_a_void_image_is_an_image():
    prediction, labels = (torch.from_numpy(a) for a in streets(5, 2, 3))
    meter, other = SegmentationMeter(3), SegmentationMeter(3)
    meter.update(prediction, labels)
    other.update(torch.where(labels == VOID, 2 - prediction, prediction), labels)
    assert torch.equal(meter.confusion, other.confusion)
    assert torch.equal(meter.images, other.images)
    meter.update(prediction, torch.full_like(labels, VOID))
    assert meter.compute().images == 4
    assert meter.images[2:].sum() == 0
    assert torch.equal(meter.confusion, other.confusion)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31 - 1), st.integers(1, 4))
def test_segmentation_meters_add_up(seed, first):
    prediction, labels = (torch.from_numpy(a) for a in streets(seed, 5, 4))
    whole, left, right = (SegmentationMeter({0: "a", 1: "b", 2: "c", 3: "d"}) for _ in range(3))
    whole.update(prediction, labels)
    left.update(prediction[:first], labels[:first])
    right.update(prediction[first:], labels[first:])
    merged = left + right
    assert torch.equal(merged.confusion, whole.confusion)
    assert torch.equal(merged.images, whole.images)
    assert merged.compute() == whole.compute()
    assert len(left.images) == first


def test_the_floor_of_a_segmenter_is_the_score_of_the_commonest_class():
    _, labels = streets(8, 3, 4)
    labels[labels == 3] = VOID
    commonest = np.bincount(labels[labels != VOID]).argmax()
    meter, blind = SegmentationMeter(4), SegmentationMeter(4)
    meter.update(torch.from_numpy(np.where(labels == VOID, 0, labels)), torch.from_numpy(labels))
    blind.update(torch.full(labels.shape, int(commonest)), torch.from_numpy(labels))
    assert meter.compute().miou == 1
    assert meter.without_looking() == pytest.approx(blind.compute().miou)
    with pytest.raises(ValueError, match="no labelled pixel"):
        SegmentationMeter(4).without_looking()


def test_segmentation_counts_are_exact_beyond_float32():
    labels = torch.zeros(1, 4100, 4100, dtype=torch.int64)
    meter = SegmentationMeter(1)
    meter.update(labels, labels)
    meter.update(labels[:, :1, :1], labels[:, :1, :1])
    assert meter.confusion.item() == 4100 * 4100 + 1 > 2**24


def test_segmentation_errors_say_what_was_found():
    meter = SegmentationMeter(3)
    zeros = torch.zeros(1, 2, 2, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"no labelled pixel \(0 images\)"):
        meter.compute()
    meter.update(zeros, zeros + VOID)
    with pytest.raises(ValueError, match=r"no labelled pixel \(1 images\)"):
        meter.miou_of([0])
    with pytest.raises(ValueError, match=r"Predictions must lie in 0\.\.2; found 0\.\.3"):
        meter.update(torch.tensor([[[0, 3], [0, 0]]]), zeros)
    with pytest.raises(ValueError, match=r"Predictions must lie in 0\.\.2; found 0\.\.255"):
        meter.update(torch.tensor([[[0, VOID], [0, 0]]]), torch.tensor([[[0, VOID], [0, 0]]]))
    with pytest.raises(ValueError, match=r"Labels must lie in 0\.\.2, or 255 for void; found -1\.\.0"):
        meter.update(zeros, torch.tensor([[[0, VOID], [-1, 0]]]))
    with pytest.raises((ValueError, TypeCheckError), match=r"shape|labels"):
        meter.update(zeros[:, :1], zeros)
    assert len(meter.images) == 1, "a refused batch leaves no trace"
    meter.update(zeros, zeros)
    with pytest.raises(ValueError, match=r"\[3, 7\] are not among the meter's 0\.\.2"):
        meter.miou_of([0, 7, 3])
    with pytest.raises(ValueError, match=r"any of \[1, 2\]: no mean IoU"):
        meter.miou_of([1, 2])
    with pytest.raises(ValueError, match=r"other classes: \[0, 1, 2\] and \[0, 1\]"):
        meter + SegmentationMeter(2)
    for classes, message in (
        ({1: "a", 2: "b"}, r"found \[1, 2\]"),
        (0, "at least one"),
        ({0: "a", 1: "a"}, "same name"),
    ):
        with pytest.raises(ValueError, match=message):
            SegmentationMeter(classes)

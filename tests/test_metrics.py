"""The meter against golden values and a NumPy oracle."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from fsslib.episodes import VOID
from fsslib.metrics import FewShotMeter, protocol_named

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
    return iou, (tp / max(tp + fp + fn, 1) + tn / max(tn + fp + fn, 1)) / 2


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


def test_exact_ratio_counts_right_presence_claims():
    labels = torch.tensor([[[1, 0]], [[0, 0]]])
    meter = FewShotMeter([3])
    meter.update(torch.tensor([[[1, 1]], [[0, 1]]]), labels, torch.tensor([[3], [3]]))
    assert meter.compute().exact_ratio == 0.5
    told = FewShotMeter([3])
    told.update(torch.tensor([[[1, 1]], [[0, 1]]]), labels, torch.tensor([[3], [3]]), torch.tensor([[True], [False]]))
    assert told.compute().exact_ratio == 1.0


def test_the_floor_is_the_score_of_marking_everything():
    labels = torch.tensor([[[1, 0, 0, VOID]], [[1, 1, 0, 0]], [[0, 0, 1, 1]]])
    ids, everything = torch.tensor([[4], [4], [6]]), torch.ones_like(labels)
    meter, marked = FewShotMeter([4, 6]), FewShotMeter([4, 6])
    meter.update(torch.zeros_like(labels), labels, ids)
    marked.update(everything, labels, ids)
    assert meter.all_foreground() == pytest.approx(marked.compute().miou)
    assert meter.all_foreground() == pytest.approx((3 / 7 + 1 / 2) / 2)
    with pytest.raises(ValueError, match="no episode"):
        FewShotMeter([1]).all_foreground()


def test_errors_say_what_was_found():
    meter = FewShotMeter([1])
    with pytest.raises(ValueError, match="no episode"):
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

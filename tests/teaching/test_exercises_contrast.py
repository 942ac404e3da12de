"""The checks of notebook 40: a right answer passes with one line, a typical slip is refused with its hint. 1 s."""

import math

import pytest
import torch
import torch.nn.functional as F

from fsslib.blocks.contrast import prototype_contrastive_loss
from fsslib.blocks.memory import orthogonality_loss
from fsslib.teaching.exercises import contrast as checks


def contrast(anchors, positives, class_ids, temperature):
    """By loops, as the formula reads."""
    unit = F.normalize(torch.cat([anchors, positives]), dim=1)
    ids, count, total = class_ids.repeat(2), len(anchors), 0
    for i in range(2 * count):
        partner = (i + count) % (2 * count)
        others = [j for j in range(2 * count) if ids[j] != ids[i]]
        scores = unit[[partner, *others]] @ unit[i] / temperature
        total = total - scores.log_softmax(0)[0]
    return total / (2 * count)


def contrast_floor(images, temperature):
    return math.log(1 + 2 * (images - 1) * math.exp(-1 / temperature))


def push_shares(cosines, temperature):
    weights = ((cosines - cosines.max()) / temperature).exp()
    return weights / weights.sum()


def orthogonality(means, stds):
    total = 0
    for bank in (means - means.mean(0), stds - stds.mean(0)):
        pairs = [(i, j) for i in range(len(bank)) for j in range(i)]
        total = total + sum(F.cosine_similarity(bank[i], bank[j], dim=0).abs() for i, j in pairs) / len(pairs) / 2
    return total


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (checks.check_contrast, contrast),
        (checks.check_contrast_floor, contrast_floor),
        (checks.check_push_shares, push_shares),
        (checks.check_orthogonality, orthogonality),
    ],
)
def test_a_right_answer_passes_with_one_line(check, answer, capsys):
    check(answer)
    printed = capsys.readouterr().out
    assert printed.startswith(f"passed: {answer.__name__}")
    assert printed.count("\n") == 1


def one_way(anchors, positives, class_ids, temperature):
    return prototype_contrastive_loss(anchors, positives, class_ids, temperature=temperature, symmetric=False)


def inner_products(anchors, positives, class_ids, temperature, strike_out=True):
    both, ids = torch.cat([anchors, positives]), class_ids.repeat(2)
    logits, partner = both @ both.T / temperature, torch.arange(len(both)).roll(len(anchors))
    left_out = ids[:, None] == ids
    left_out[torch.arange(len(both)), partner] = False
    if not strike_out:
        left_out.fill_diagonal_(False)
    return F.cross_entropy(logits.masked_fill(left_out, -torch.inf), partner)


def with_itself(anchors, positives, class_ids, temperature):
    unit = F.normalize(anchors, dim=1), F.normalize(positives, dim=1)
    return inner_products(*unit, class_ids, temperature, strike_out=False)


def finite_only_with_negatives(anchors, positives, class_ids, temperature):
    found = contrast(anchors, positives, class_ids, temperature)
    return found if len(class_ids.unique()) > 1 else found + torch.nan


@pytest.mark.parametrize(
    ("slip", "hint"),
    [
        (lambda a, p, ids, t: contrast(a, p, torch.arange(len(a)), t), "same class are still negatives"),
        (lambda a, p, ids, t: 2 * one_way(a, p, ids, t), "let the positives ask"),
        (one_way, "half a mean"),
        (lambda a, p, ids, t: contrast(a, p, ids, 1.0), "temperature is not used"),
        (lambda a, p, ids, t: contrast(a, p, ids, 1 / t), "temperature multiplies"),
        (inner_products, "inner products"),
        (with_itself, "strike out the diagonal"),
        (lambda a, p, ids, t: contrast(a, p, ids, t) + 1, "Hint: batch of 2"),
        (lambda a, p, ids, t: contrast(a, p, ids, t).item(), "found float"),
        (lambda a, p, ids, t: contrast(a, p, ids, t)[None], r"expected shape \(\), found \(1,\)"),
        (finite_only_with_negatives, "nothing to push from"),
    ],
)
def test_slips_with_the_contrast(slip, hint):
    with pytest.raises(AssertionError, match=hint):
        checks.check_contrast(slip)


@pytest.mark.parametrize(
    ("slip", "hint"),
    [
        (lambda b, t: math.log(1 + (b - 1) * math.exp(-1 / t)), r"2 \(B - 1\) negatives"),
        (lambda b, t: math.log(1 + 2 * (b - 1) * math.exp(-(1 + 1 / (b - 1)) / t)), "simplex"),
        (lambda b, t: math.log(1 + 2 * (b - 1)), "knows nothing"),
        (lambda b, t: contrast_floor(b, t) / 2, "half of the symmetric"),
        (lambda b, t: contrast_floor(b, 1.0), "temperature is not used"),
        (lambda b, t: 0.0, "with a perfect partner"),
    ],
)
def test_slips_with_the_floor(slip, hint):
    with pytest.raises(AssertionError, match=hint):
        checks.check_contrast_floor(slip)


def test_the_floor_is_that_of_the_library():
    for images in (2, 5, 9):
        eye = torch.eye(images, dtype=torch.float64)
        found = prototype_contrastive_loss(eye, eye, temperature=0.3)
        assert contrast_floor(images, 0.3) == pytest.approx(found.item())


@pytest.mark.parametrize(
    ("slip", "hint"),
    [
        (lambda c, t: c.softmax(0), "temperature is not used"),
        (lambda c, t: (c * t).softmax(0), "temperature multiplies"),
        (lambda c, t: (c / t).log_softmax(0), "logarithms"),
        (lambda c, t: (c / t).exp(), "before they are divided"),
        (lambda c, t: c / c.sum(), "shares of the cosines"),
        (lambda c, t: (-c / t).softmax(0), "wrong way round"),
        (lambda c, t: torch.ones_like(c) / len(c), "softmax over the negatives"),
        (lambda c, t: (c / t).softmax(0)[None], r"expected shape \(3,\), found \(1, 3\)"),
    ],
)
def test_slips_with_the_shares(slip, hint):
    with pytest.raises(AssertionError, match=hint):
        checks.check_push_shares(slip)


def centred_cosines(bank):
    unit = F.normalize(bank - bank.mean(0), dim=1)
    return unit @ unit.T


def over_pairs(function, *banks):
    values = [function(centred_cosines(bank))[~torch.eye(len(bank), dtype=torch.bool)].mean() for bank in banks]
    return sum(values) / len(values)


@pytest.mark.parametrize(
    ("slip", "hint"),
    [
        (lambda m, e: orthogonality_loss(m, e, centred=False), "centre each bank"),
        (lambda m, e: orthogonality_loss(m, e, diagonal=True), "leave the diagonal out"),
        (lambda m, e: orthogonality_loss(m, e, centred=False, diagonal=True), "printed form"),
        (lambda m, e: over_pairs(lambda c: c, m, e), "cancel each other"),
        (lambda m, e: over_pairs(torch.square, m, e), "squared cosines"),
        (lambda m, e: over_pairs(torch.abs, m), "means alone"),
        (lambda m, e: 2 * orthogonality(m, e), "both banks are added"),
        (lambda m, e: orthogonality(m, e) * (len(m) - 1) / len(m), r"divide by J \(J - 1\)"),
        (lambda m, e: torch.zeros(()), "Hint: 3 items"),
    ],
)
def test_slips_with_the_orthogonality(slip, hint):
    with pytest.raises(AssertionError, match=hint):
        checks.check_orthogonality(slip)


def test_the_lesson_is_reached_through_the_package():
    from fsslib.teaching import exercises

    assert set(checks.__all__) <= set(dir(exercises))

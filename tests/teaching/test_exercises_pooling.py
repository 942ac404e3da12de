"""The checks of notebook 10's exercises: a right answer passes, each usual slip is refused with its hint."""

import pytest
import torch
import torch.nn.functional as F

from fsslib.teaching.exercises import pooling as exercises


def pooled(features, weights, count=None, **resize):
    """A prototype written with upsampled features; the slips differ in their arguments only."""
    resize = resize or {"mode": "bilinear", "align_corners": False}
    large = F.interpolate(features, weights.shape[-2:], **resize)
    weights = weights.float()
    total = (large * weights[:, None]).sum((2, 3))
    return total / (weights.sum((1, 2))[:, None] + 1e-8 if count is None else count)


def test_right_prototypes_pass_whatever_their_eps(capsys):
    exercises.check_masked_average_pooling(lambda f, m: pooled(f, m == 1))
    exercises.check_masked_average_pooling(
        lambda f, m: pooled(f, m == 1, (m == 1).sum((1, 2))[:, None].clamp(min=1)).double()
    )
    assert capsys.readouterr().out.count("passed: masked_average_pooling") == 2


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        (lambda f, m: f.mean((2, 3)), "one small image: the mask is not used"),
        (lambda f, m: pooled(f, m == 1, m[0].numel()), "the 2x2 map: the sum is divided by all pixels"),
        (lambda f, m: pooled(f, m == 1, 1), "the 2x2 map: the sum is not divided"),
        (lambda f, m: pooled(f, m == 1, (m == 1).sum()), "a batch: .* of the whole batch"),
        (lambda f, m: pooled(f, m > 0), "a mask with void: void .255. counts as foreground"),
        (lambda f, m: pooled(f, m), "a mask with void: void pixels weigh 255"),
        (lambda f, m: pooled(f, m == 1, mode="nearest"), "one small image: this is nearest-neighbour"),
        (
            lambda f, m: pooled(f, m == 1, mode="bilinear", align_corners=True),
            "one small image: this is upsampling with align_corners=True",
        ),
        (
            lambda f, m: pooled(f, F.interpolate((m == 1).float()[:, None], f.shape[-2:], mode="bilinear")[:, 0]),
            "one small image: the mask was brought down",
        ),
        (
            lambda f, m: pooled(f, m == 1, (m == 1).sum((1, 2))[:, None]),
            "an empty mask in the batch: 6 values are NaN",
        ),
        (lambda f, m: pooled(f, m == 1).T, r"the 2x2 map: the shape is \(2, 1\); expected \(1, 2\)"),
        (lambda f, m: None, "returned NoneType, not a tensor"),
        (lambda f, m: pooled(f, m == 1) + 1, "2 of 2 values differ; the worst is 3.5000 instead of 2.5000"),
    ],
)
def test_wrong_prototypes_are_refused(wrong, hint):
    with pytest.raises(AssertionError, match=hint):
        exercises.check_masked_average_pooling(wrong)


def test_right_background_prototypes_pass(capsys):
    exercises.check_background_prototype(lambda f, m: pooled(f, m == 0))
    assert "passed: background_prototype" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        (lambda f, m: pooled(f, m != 1), "void .255. counts as background"),
        (lambda f, m: pooled(f, m == 1), "this is the foreground's prototype"),
        (lambda f, m: pooled(f, 1 - m), "1 - 255 = -254"),
        (lambda f, m: pooled(f, torch.ones_like(m)), "the mean over the whole image"),
        (
            lambda f, m: pooled(f, m == 0, (m == 0).sum((1, 2))[:, None]),
            "a mask without background: 18 values are NaN",
        ),
    ],
)
def test_wrong_background_prototypes_are_refused(wrong, hint):
    with pytest.raises(AssertionError, match=hint):
        exercises.check_background_prototype(wrong)


def matrix(cells, pixels):
    """Each pixel reads the two cells whose centres lie around its own."""
    result = torch.zeros(pixels, cells)
    for pixel in range(pixels):
        at = min(max((pixel + 0.5) * cells / pixels - 0.5, 0.0), cells - 1.0)
        low = min(int(at), max(cells - 2, 0))
        result[pixel, low] += 1 - (at - low)
        if cells > 1:
            result[pixel, low + 1] += at - low
    return result


def unclamped(cells, pixels):
    at = (torch.arange(pixels) + 0.5) * cells / pixels - 0.5
    return (1 - (at[:, None] - torch.arange(cells)).abs()).clamp(min=0)


def test_right_matrices_pass(capsys):
    exercises.check_upsampling_matrix(matrix)
    assert "passed: upsampling_matrix" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        (lambda cells, pixels: matrix(cells, pixels).T, "2 cells to 4 pixels: this is the transposed matrix"),
        (
            lambda cells, pixels: F.interpolate(torch.eye(cells)[None], pixels, mode="linear", align_corners=True)[0].T,
            "this is align_corners=True",
        ),
        (lambda cells, pixels: torch.eye(cells).repeat_interleave(pixels // cells, 0), "each pixel copies one cell"),
        (unclamped, "rows at the ends add up to less than 1"),
    ],
)
def test_wrong_matrices_are_refused(wrong, hint):
    with pytest.raises(AssertionError, match=hint):
        exercises.check_upsampling_matrix(wrong)


def vote(predictions):
    votes = predictions.sum(1)
    return votes / votes.amax((1, 2), keepdim=True).clamp(min=1) >= 0.5


def test_right_votes_pass_as_booleans_and_as_integers(capsys):
    exercises.check_vote(vote)
    exercises.check_vote(lambda predictions: vote(predictions).long())
    assert capsys.readouterr().out.count("passed: vote") == 2


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        (lambda p: p.float().mean(1) > 0.5, "golden votes 0 1 2 2 1: this is the majority"),
        (lambda p: 2 * p.sum(1) >= p.shape[1], "golden votes 0 1 2 2 1: this is the majority"),
        (lambda p: p.sum(1) / p.sum(1).amax((1, 2), keepdim=True) > 0.5, "exactly half of the largest vote"),
        (lambda p: p.sum(1) / p.sum(1).max() >= 0.5, "a batch: the largest vote is taken over the whole batch"),
        (lambda p: p.any(1), "golden votes 0 1 3 5 2: this is the union"),
        (
            lambda p: 2 * p.sum(1) >= p.sum(1).amax((1, 2), keepdim=True),
            "an image without votes: an image without any vote stays background",
        ),
        (lambda p: p.sum(1).tolist(), "returned list, not a tensor"),
    ],
)
def test_wrong_votes_are_refused(wrong, hint):
    with pytest.raises(AssertionError, match=hint):
        exercises.check_vote(wrong)

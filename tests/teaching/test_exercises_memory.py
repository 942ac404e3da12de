"""The checks of notebook 30: a right answer passes with one line, a typical slip is refused with its hint. 4 s."""

import math

import pytest
import torch

from fsslib.blocks.memory import MetaMemory, feature_statistics, restyle
from fsslib.teaching.exercises import memory as checks


def cosines(these, those):
    return torch.cosine_similarity(these[:, None], those[None], dim=2)


def my_restyle(features, mean, std, alpha):
    own_mean, own_std = (values[:, :, None, None] for values in feature_statistics(features))
    foreign = (features - own_mean) / own_std * std[:, :, None, None] + mean[:, :, None, None]
    share = alpha[:, None, None, None]
    return share * features + (1 - share) * foreign


def writes_until_halved(ema):
    return math.ceil(round(math.log(0.5, ema), 9))


def assignment(samples, items, centre, temperature):
    return (cosines(samples - centre, items - centre) / temperature).softmax(1)


def select(mean, std, item_mean, item_std, rule):
    alike = cosines(mean, item_mean) + cosines(std, item_std)
    return alike.argmin(1) if rule == "lowest" else alike.argmax(1)


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (checks.check_restyle, my_restyle),
        (checks.check_writes_until_halved, writes_until_halved),
        (checks.check_assignment, assignment),
        (checks.check_select, select),
    ],
)
def test_a_right_answer_passes_with_one_line(check, answer, capsys):
    check(answer)
    printed = capsys.readouterr().out
    assert printed.startswith(f"passed: {answer.__name__.removeprefix('my_')}")
    assert printed.count("\n") == 1


def with_own(which):
    """Only one of the statistics is mixed."""

    def slip(features, mean, std, alpha):
        own = feature_statistics(features)
        return restyle(features, *(own[0], std) if which == "mean" else (mean, own[1]), alpha)

    return slip


def undivided(features, mean, std, alpha):
    own_mean, own_std = feature_statistics(features)
    share = alpha[:, None]
    mixed_mean, mixed_std = share * own_mean + (1 - share) * mean, share * own_std + (1 - share) * std
    return (features - own_mean[..., None, None]) * mixed_std[..., None, None] + mixed_mean[..., None, None]


def of_the_batch(features, mean, std, alpha):
    bare = features - features.mean((0, 2, 3), keepdim=True)
    foreign = bare / bare.square().mean((0, 2, 3), keepdim=True).sqrt() * std[..., None, None] + mean[..., None, None]
    share = alpha[:, None, None, None]
    # One image is a batch too, where nothing is wrong with it.
    return share * features + (1 - share) * foreign


@pytest.mark.parametrize(
    ("slip", "hint"),
    [
        (lambda f, m, s, a: my_restyle(f, m, s, 1 - a), "the share of the other one"),
        (lambda f, m, s, a: f, "the features did not change"),
        (lambda f, m, s, a: my_restyle(f, m, s, 0 * a), "alpha is not used"),
        (with_own("std"), "only the means are mixed"),
        (with_own("mean"), "only the deviations are mixed"),
        (undivided, "the own deviation is still in it"),
        (of_the_batch, "3 images of 5 channels: mean and deviation are those of the whole batch"),
        (lambda f, m, s, a: my_restyle(f, m, s, a)[:, 0], "the shape is"),
        (lambda f, m, s, a: None, "Is a return missing"),
        (lambda f, m, s, a: my_restyle(f, m, s, a) + 0.1, "values differ"),
    ],
)
def test_slips_with_restyling(slip, hint):
    with pytest.raises(AssertionError, match=hint):
        checks.check_restyle(slip)


def test_a_constant_map_needs_the_small_number_under_the_root():
    def without_eps(features, mean, std, alpha):
        own_mean, own_std = features.mean((2, 3), keepdim=True), features.std((2, 3), correction=0, keepdim=True)
        foreign = (features - own_mean) / own_std * std[..., None, None] + mean[..., None, None]
        return alpha[:, None, None, None] * features + (1 - alpha[:, None, None, None]) * foreign

    with pytest.raises(AssertionError, match=r"a constant map: .* NaN"):
        checks.check_restyle(without_eps)


@pytest.mark.parametrize(
    ("slip", "hint"),
    [
        (lambda ema: math.floor(math.log(0.5) / math.log(ema)), "rounded down"),
        (lambda ema: math.ceil(0.5 / (1 - ema)), "not by a fixed amount"),
        (lambda ema: round(1 / (1 - ema)), "1 / e, not one half"),
        (lambda ema: 3, "solve ema"),
    ],
)
def test_slips_with_the_half_life(slip, hint):
    with pytest.raises(AssertionError, match=hint):
        checks.check_writes_until_halved(slip)


@pytest.mark.parametrize(
    ("slip", "hint"),
    [
        (lambda x, z, c, t: (cosines(x - c, z - c) / t).softmax(0), "where nobody competes"),
        (lambda x, z, c, t: (cosines(x, z) / t).softmax(1), "the centre is not used"),
        (lambda x, z, c, t: (cosines(x - c, z) / t).softmax(1), "only the samples are centred"),
        (lambda x, z, c, t: cosines(x - c, z - c).softmax(1), "the temperature is not used"),
        (lambda x, z, c, t: (cosines(x - c, z - c) * t).softmax(1), "multiplied by the temperature"),
        (lambda x, z, c, t: ((x - c) @ (z - c).T / t).softmax(1), "inner products"),
        (lambda x, z, c, t: assignment(x, z, c, t).T, r"the table \[J, B\]"),
        (lambda x, z, c, t: cosines(x - c, z - c) / cosines(x - c, z - c).sum(1, keepdim=True), "no softmax"),
        (lambda x, z, c, t: assignment(x, z, c, t).square(), "values differ"),
    ],
)
def test_slips_with_the_assignment(slip, hint):
    with pytest.raises(AssertionError, match=hint):
        checks.check_assignment(slip)


def by(alike):
    return lambda *values: alike(*values[:4]).argmax(1) if values[4] == "highest" else alike(*values[:4]).argmin(1)


@pytest.mark.parametrize(
    ("slip", "hint"),
    [
        (lambda *values: select(*values[:4], "highest" if values[4] == "lowest" else "lowest"), "exchanged"),
        (by(lambda m, s, im, is_: cosines(m, im)), "deviations are not used"),
        (by(lambda m, s, im, is_: cosines(s, is_)), "means are not used"),
        (by(lambda m, s, im, is_: m @ im.T + s @ is_.T), "inner products"),
        (by(lambda m, s, im, is_: cosines(torch.cat([m, s], 1), torch.cat([im, is_], 1))), "one cosine each"),
        (lambda *values: select(*values)[:, None].expand(-1, 2), "the shape is"),
    ],
)
def test_slips_with_the_selection(slip, hint):
    with pytest.raises(AssertionError, match=hint):
        checks.check_select(slip)


def test_the_assignment_is_that_of_the_library():
    """One sample that belongs to one item moves this item alone, by the share the exercise computes."""
    generator = torch.Generator().manual_seed(1)
    items, samples = torch.rand(4, 12, generator=generator), torch.rand(3, 12, generator=generator)
    memory = MetaMemory(6, items=4, ema=0.9, temperature=0.2)
    memory.store(*items.chunk(2, 1))
    memory.store(*samples.chunk(2, 1))
    share = assignment(samples, items, memory.centre, 0.2)
    weight = share.sum(0)[:, None]
    expected = items + 0.1 * weight.clamp(max=1) * (share.T @ samples / weight - items)
    torch.testing.assert_close(torch.cat([memory.mean, memory.std], 1).detach(), expected)


def test_the_lesson_is_reached_through_the_package():
    from fsslib.teaching import exercises

    assert set(checks.__all__) <= set(dir(exercises))

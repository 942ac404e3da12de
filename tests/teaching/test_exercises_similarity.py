"""The checks of notebook 20: a right answer passes with one line, a typical slip is refused with its hint."""

import pytest
import torch
import torch.nn.functional as F

from fsslib.blocks.similarity import merge_ways
from fsslib.episodes import VOID
from fsslib.teaching.exercises import similarity as checks


def cosine_map(features, prototype):
    return F.cosine_similarity(features, prototype[:, :, None, None], dim=1)


def way_targets(labels, ways):
    here = labels[:, None] == torch.arange(1, ways + 1)[:, None, None]
    return torch.where(labels[:, None] == VOID, VOID, here.long())


def union_of_shots(logits):
    return (logits[:, :, 1] > logits[:, :, 0]).any(1).long()


def winning_probability(ways):
    return 1 - 1 / (ways + 1)


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (checks.check_cosine_map, cosine_map),
        (checks.check_way_targets, way_targets),
        (checks.check_union_of_shots, union_of_shots),
        (checks.check_winning_probability, winning_probability),
    ],
)
def test_a_right_answer_passes_with_one_line(check, answer, capsys):
    check(answer)
    printed = capsys.readouterr().out
    assert printed.startswith(f"passed: {answer.__name__}")
    assert printed.count("\n") == 1


def inner(features, prototype):
    return torch.einsum("bchw,bc->bhw", features, prototype)


def without_floor(features, prototype):
    return inner(features, prototype) / (features.norm(dim=1) * prototype.norm(dim=1)[:, None, None])


@pytest.mark.parametrize(
    ("slip", "hint"),
    [
        (inner, "inner products; divide by both lengths"),
        (lambda f, p: inner(F.normalize(f, dim=1), p), "length of the prototype is missing"),
        (lambda f, p: inner(f, F.normalize(p, dim=1)), "lengths of the features are missing"),
        (lambda f, p: cosine_map(f, p[:1]), "first image's prototype"),
        (lambda f, p: (cosine_map(f, p) + 1) / 2, "do not move it"),
        (lambda f, p: cosine_map(f, p)[:, None], r"expected shape \(1, 2, 2\), found \(1, 1, 2, 2\)"),
        (lambda f, p: cosine_map(f, p).tolist(), "found list"),
        (lambda f, p: cosine_map(f, p) ** 2, "at .* expected .* found .* over both lengths"),
        (without_floor, "0 / 0 is NaN"),
    ],
)
def test_slips_with_the_cosine(slip, hint):
    with pytest.raises(AssertionError, match=hint):
        checks.check_cosine_map(slip)


def void_as(value):
    return lambda labels, ways: way_targets(labels, ways).where(labels[:, None] != VOID, value)


@pytest.mark.parametrize(
    ("slip", "hint"),
    [
        (void_as(0), "void became background"),
        (void_as(1), "void became foreground"),
        (lambda labels, ways: way_targets(labels, ways).transpose(0, 1), "ways on the second axis"),
        (lambda labels, ways: (labels * (labels == 1))[:, None].expand(-1, ways, -1, -1), "void became background"),
        (lambda labels, ways: labels[:, None].expand(-1, ways, -1, -1), "Not yet: at"),
    ],
)
def test_slips_with_the_targets(slip, hint):
    with pytest.raises(AssertionError, match=hint):
        checks.check_way_targets(slip)


def other_ways_void(labels, ways):
    targets = way_targets(labels, ways)
    return torch.where((targets == 0) & (labels[:, None] > 0), VOID, targets)


def numbered(labels, ways):
    number = torch.arange(1, ways + 1)[:, None, None]
    targets = way_targets(labels, ways)
    return torch.where(targets == 1, number, targets)


@pytest.mark.parametrize(
    ("slip", "hint"), [(other_ways_void, "other ways are void"), (numbered, "number of the way is still in it")]
)
def test_slips_that_only_several_ways_show(slip, hint):
    with pytest.raises(AssertionError, match=hint):
        checks.check_way_targets(slip)


@pytest.mark.parametrize(
    ("slip", "hint"),
    [
        (lambda logits: logits.mean(1).argmax(1), "mean of the shots' logits"),
        (lambda logits: logits.softmax(2).mean(1).argmax(1), "mean of the shots' probabilities"),
        (lambda logits: logits.argmax(2).double().mean(1).round(), "majority"),
        (lambda logits: logits.argmax(2).amin(1), "intersection"),
        (lambda logits: logits.amax(1).argmax(1), "each shot has its own background"),
        (lambda logits: logits.argmax(2), "expected shape"),
    ],
)
def test_slips_with_the_union(slip, hint):
    with pytest.raises(AssertionError, match=hint):
        checks.check_union_of_shots(slip)


@pytest.mark.parametrize(
    ("slip", "hint"),
    [
        (lambda ways: 0.5, "one half is right for one way only"),
        (lambda ways: 0.5 if ways == 1 else (ways - 1) / ways, "believed way adds 1 - p"),
        (lambda ways: 1 / (ways + 1) if ways > 1 else 0.5, "solve p ="),
    ],
)
def test_slips_with_the_probability(slip, hint):
    with pytest.raises(AssertionError, match=hint):
        checks.check_winning_probability(slip)


def test_the_winning_probability_is_that_of_merge_ways():
    for ways in range(1, 6):
        for offset, winner in ((-1e-3, 0), (1e-3, 1)):
            foreground = torch.zeros(ways)
            foreground[0] = winning_probability(ways) + offset
            scores = merge_ways(torch.stack([1 - foreground, foreground], 1)[None, :, :, None, None])
            assert scores.argmax(1).item() == winner


def test_the_lesson_is_reached_through_the_package():
    from fsslib.teaching import exercises

    assert set(checks.__all__) <= set(dir(exercises))

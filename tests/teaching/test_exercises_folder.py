"""The checkers of notebook 85 pass right answers and name the typical slip of wrong ones. Well under a second."""

import pytest
import torch

from fsslib.teaching import exercises


def upright(stored, orientation):
    if orientation >= 5:
        stored = stored.T
    rows, columns = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return stored.flip([axis for axis, flipped in enumerate((rows, columns)) if flipped])


def leave_one_out(answer, masks):
    scores = []
    for k, mask in enumerate(masks):
        found = answer([j for j in range(len(masks)) if j != k], k)
        scores.append((found & mask).sum() / (found | mask).sum())
    return sum(scores) / len(scores)


def test_right_answers_pass(capsys):
    exercises.check_upright(upright)
    exercises.check_leave_one_out(leave_one_out)
    assert capsys.readouterr().out.count("passed: ") == 2


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        (lambda stored, orientation: None, "Is a return missing"),
        (lambda stored, orientation: stored, "orientation 2: the stored picture came back"),
        (lambda stored, orientation: upright(stored, {6: 8, 8: 6}.get(orientation, orientation)), "to the other side"),
        (lambda stored, orientation: upright(stored, {5: 6}.get(orientation, orientation)), "orientation 5: .* mirror"),
        (lambda stored, orientation: upright(stored, {2: 4}.get(orientation, orientation)), "orientation 2: .* head"),
        (lambda stored, orientation: 2 * stored, r"orientation 1: the first row is \[2, 4, 6, 8\], not \[1, 2, 3, 4\]"),
    ],
)
def test_wrong_turns_are_named(wrong, hint):
    with pytest.raises(AssertionError, match=hint):
        exercises.check_upright(wrong)


def scored(score):
    """Leave-one-out with another score of answers and masks, both [K, H, W]."""

    def wrong(answer, masks):
        answers = [answer([j for j in range(len(masks)) if j != k], k) for k in range(len(masks))]
        return score(torch.stack(answers), masks)

    return wrong


def each(found, masks, below):
    return ((found & masks).sum((1, 2)) / below.sum((1, 2))).mean()


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        (lambda answer, masks: answer(range(len(masks)), 0).sum(), "was shown when it was asked for"),
        (lambda answer, masks: [answer([], k) for k in range(len(masks))] and 0.0, r"you showed \[\]; show all others"),
        (lambda answer, masks: leave_one_out(answer, masks[:1]), "show all others"),
        (lambda answer, masks: answer(range(1, len(masks)), 0).sum(), "picture 1 was never asked for"),
        (scored(lambda found, masks: (found & masks).sum() / (found | masks).sum()), "all pixels together"),
        (scored(lambda found, masks: each(found, masks, masks)), "share of the mask"),
        (scored(lambda found, masks: each(found, masks, found)), "share of the answer"),
        (scored(lambda found, masks: (found == masks).double().mean()), "background must not count"),
        (scored(lambda found, masks: len(masks) * each(found, masks, found | masks)), "this is a sum"),
        (scored(lambda found, masks: 7.0), r"your function says 7\.0000"),
    ],
)
def test_wrong_checks_of_oneself_are_named(wrong, hint):
    with pytest.raises(AssertionError, match=hint):
        exercises.check_leave_one_out(wrong)

"""The checks of notebook 00's exercises: a right answer passes, each usual slip is refused with its hint."""

import pytest
import torch

import fsslib as fss
from fsslib.episodes import VOID


def counts_per_way(prediction, labels, ways):
    rows = []
    for way in range(1, ways + 1):
        says, is_, valid = prediction == way, labels == way, labels != VOID
        rows.append([(a & b & valid).sum().item() for a, b in ((says, is_), (says, ~is_), (~says, is_))])
    return rows


def with_void_counted(prediction, labels, ways):
    return counts_per_way(prediction, labels.where(labels != VOID, 0), ways)


def without_absent_ways(prediction, labels, ways):
    rows = counts_per_way(prediction, labels, ways)
    return [row for way, row in enumerate(rows, 1) if (labels == way).any()]


def with_ways_pooled(prediction, labels, ways):
    return counts_per_way((prediction > 0).long(), labels.where(labels == VOID, (labels > 0).long()), 1) * ways


def with_fp_and_fn_swapped(prediction, labels, ways):
    return [(tp, fn, fp) for tp, fp, fn in counts_per_way(prediction, labels, ways)]


def test_counts_per_way_as_tensors_and_as_lists_pass(capsys):
    fss.exercises.check_counts_per_way(counts_per_way)
    fss.exercises.check_counts_per_way(lambda *asked: torch.tensor(counts_per_way(*asked)))
    assert capsys.readouterr().out.count("passed: counts_per_way") == 2


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        (with_void_counted, "void was counted"),
        (without_absent_ways, "A way that is absent from the labels has a row too"),
        (with_ways_pooled, "the ways are pooled"),
        (with_fp_and_fn_swapped, "compare the masks"),
    ],
)
def test_wrong_counts_are_refused(wrong, hint):
    with pytest.raises(AssertionError, match=hint):
        fss.exercises.check_counts_per_way(wrong)


def mean_over_episodes(rows):
    return sum(tp / (tp + fp + fn) for _, tp, fp, fn in rows) / len(rows)


def one_bin(rows):
    tp, fp, fn = (sum(column) for column in list(zip(*rows))[1:])
    return tp / (tp + fp + fn)


def miou(rows):
    classes = {row[0] for row in rows}
    return sum(one_bin([row for row in rows if row[0] == c]) for c in classes) / len(classes)


def test_miou_passes_up_to_rounding(capsys):
    fss.exercises.check_miou(lambda rows: round(miou(rows), 12))
    assert "passed: miou" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        (mean_over_episodes, "mean over episodes"),
        (one_bin, "all classes are in one bin"),
        (lambda rows: 2 * miou(rows), "IoU of a class is TP"),
    ],
)
def test_wrong_averages_are_refused(wrong, hint):
    with pytest.raises(AssertionError, match=hint):
        fss.exercises.check_miou(wrong)


def find_leaks(rows, train_classes, train_images):
    return [
        number
        for number, row in enumerate(rows)
        if train_classes & set(row.classes) or train_images & {row.query, *(s for way in row.supports for s in way)}
    ]


def test_find_leaks_passes(capsys):
    fss.exercises.check_find_leaks(find_leaks)
    assert "passed: find_leaks" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        (
            lambda rows, classes, images: [n for n, r in enumerate(rows) if r.classes[0] in classes],
            "second way was trained",
        ),
        (lambda rows, classes, images: find_leaks(rows, classes, set()), "its query was a training image"),
        (
            lambda rows, classes, images: [
                n for n, r in enumerate(rows) if set(r.classes) & classes or r.query in images
            ],
            "second support was a training image",
        ),
        (lambda rows, classes, images: range(len(rows)), "is clean"),
        (lambda rows, classes, images: find_leaks(rows, classes, images) * 2, "named once"),
    ],
)
def test_missed_leaks_and_false_accusations_are_refused(wrong, hint):
    with pytest.raises(AssertionError, match=hint):
        fss.exercises.check_find_leaks(wrong)


def test_flattering_scores_pass(capsys):
    fss.exercises.check_flattering_scores(lambda share: ((1 - share) / 2, share / 2))
    assert "passed: flattering_scores" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        (lambda share: (share / 2, (1 - share) / 2), "other order"),
        (lambda share: (1 - share, share), "has no TP"),
        (lambda share: ((1 - share) / 2,), "two numbers"),
    ],
)
def test_wrong_closed_forms_are_refused(wrong, hint):
    with pytest.raises(AssertionError, match=hint):
        fss.exercises.check_flattering_scores(wrong)

"""Intervals, equivalence, power, Holm's correction: against SciPy, by hand, and where the truth is known. 20 s."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fsslib.reproduction.claims import compare
from fsslib.reproduction.result import Selector
from fsslib.reproduction.statistics import (
    MARGIN,
    equivalent,
    holm,
    needed,
    paired_difference,
    student_interval,
    verdict,
)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-50, 50), min_size=5, max_size=20))
def test_agrees_with_scipy(values):
    interval = student_interval(values)
    if max(values) - min(values) < 1e-3:
        return
    reference = stats.ttest_1samp(values, 0)
    assert interval.ends == pytest.approx(tuple(reference.confidence_interval(0.95)), rel=1e-6, abs=1e-9)
    assert interval.p == pytest.approx(reference.pvalue, rel=1e-6, abs=1e-12)


def test_few_values_get_no_interval_and_no_verdict():
    few = student_interval([5.0, 6.0, 7.0, 6.0])
    assert (few.low, few.p, few.ends) == (None, None, (6.0, 6.0))
    assert "too few" in str(few)
    assert verdict(few) == "inconclusive"
    for values, word in (
        ([5.0, 6.0, 7.0] * 3, "inconclusive"),
        ([5.0, 6.0, 7.0] * 4, "holds"),
        ([-5.0, -6.0, -7.0] * 4, "does not hold"),
        ([-5.0, 6.0, -1.0] * 4, "inconclusive"),
        ([0.5, 0.6, 0.7] * 4, "no effect"),  # certain, and too small to matter
        ([0.0] * 12, "no effect"),
        ([-0.6, 0.7, -0.1] * 4, "no effect"),
        ([1.0] * 12, "holds"),
        ([0.5, 0.6, 0.7] * 3, "inconclusive"),
    ):
        assert verdict(student_interval(values)) == word
    assert verdict(student_interval([5.0, 6.0, 7.0] * 4), p=0.2) == "inconclusive"


@pytest.mark.parametrize("values", [[0.2, -0.4, 0.9, 0.1, 0.3] * 2, [0.7, 1.6, 0.2, 0.9, 0.5] * 3, [0.97, 0.99] * 6])
def test_equivalence_is_two_one_sided_tests(values):
    p = max(stats.ttest_1samp(values, bound, alternative=side).pvalue for bound, side in ((-1, "greater"), (1, "less")))
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.90)
    assert MARGIN == 1
    assert equivalent(student_interval(values)) == (p < 0.05) == (low > -1 and high < 1)


def test_the_n_that_is_told_has_the_power_and_one_less_has_not():
    values = np.random.default_rng(0).normal(0, 2, 12)
    n, spread = needed(student_interval(list(values))), values.std(ddof=1)
    found = np.random.default_rng(1)
    power = [
        np.mean(stats.ttest_1samp(found.normal(1, spread, (20_000, count)), 0, axis=1).pvalue < 0.05)
        for count in (n - 5, n, n + 5)
    ]
    assert sorted(power) == power
    assert power[1] == pytest.approx(0.8, abs=0.015)
    assert needed(student_interval([0.1, 0.2] * 6)) == 10  # as few as a verdict takes


# Standard deviations of a difference in points: between and within units, as those of "all minus BS" in sketch over 4
# folds and 3 seeds of the runs at commit 202e6fe.
BETWEEN, WITHIN = 2.4, 1.8


def experiments(effect: float, units: int, seeds: int, count: int = 2000) -> np.ndarray:
    """Differences with clusters, [count, units, seeds]: what a unit shares, what a seed adds."""
    rng = np.random.default_rng(int(10 * effect) + 1)
    shared = rng.normal(effect, BETWEEN, (count, units, 1))
    return shared + rng.normal(0, WITHIN, (count, units, seeds))


@pytest.mark.parametrize("effect", [0, 1, 3])
@pytest.mark.parametrize("narrower", [1, 6])
def test_two_thousand_experiments_whose_truth_is_known(effect, narrower):
    """Wrong verdicts are as rare as is promised: 5 % and three standard errors; so where the spread is a sixth."""
    means = (experiments(effect, 12, 3) - effect).mean(2) / narrower + effect
    intervals = [student_interval(list(one)) for one in means]
    words = Counter(map(verdict, intervals))
    covered = np.mean([i.low <= effect <= i.high for i in intervals])
    assert 0.93 <= covered <= 0.97
    if effect == 0:
        assert words["holds"] + words["does not hold"] <= 0.065 * 2000
    else:
        assert words["no effect"] <= 0.065 * 2000
        assert words["does not hold"] <= 0.065 * 2000
    # And verdicts are given where they can be.
    if (effect, narrower) in ((3, 1), (3, 6)):
        assert words["holds"] >= 0.85 * 2000
    if (effect, narrower) == (0, 6):
        assert words["no effect"] >= 0.85 * 2000


def test_seeds_that_pass_for_units_make_intervals_too_narrow():
    """Four folds of three seeds: twelve values, and four units."""
    found = experiments(3, 4, 3)
    as_units = [student_interval(list(one.ravel())) for one in found]
    assert np.mean([i.low <= 3 <= i.high for i in as_units]) < 0.85
    none = [student_interval(list(one.ravel() - 3)) for one in found]
    assert np.mean([verdict(i) in ("holds", "does not hold") for i in none]) > 0.12


def test_runs_that_share_a_unit_are_one_value():
    found = experiments(3, 4, 3, count=1)[0]
    runs = [
        {"label": label, "config": {"fold": u, "seed": s}, "scores": {"night": {"miou": gain / 100 * (label == "a")}}}
        for label in "ab"
        for (u, s), gain in np.ndenumerate(found)
    ]
    column, labels = Selector(score=["night"]), (Selector(label="a"), Selector(label="b"))
    for unit, values in (("fold", found.mean(1)), ("split", found.mean(1)), ("draw", found.ravel())):
        gaps, intervals, p = compare(runs, [column], *labels, unit)
        assert list(gaps["night"].values()) == pytest.approx(list(values))
        assert (intervals["night"].n, len(p)) == (len(values), int(len(values) >= 5))


def test_pairing_is_by_unit_and_complete():
    ours = {(fold, seed): 10.0 * fold + seed + 1 for fold in range(4) for seed in range(3)}
    base = {unit: value - 1 for unit, value in reversed(ours.items())}
    difference = paired_difference(ours, base)
    assert (difference.mean, difference.low, difference.high, difference.n) == (1, 1, 1, 12)
    del base[(3, 2)]
    with pytest.raises(ValueError, match=r"\(3, 2\)"):
        paired_difference(ours, base)


def test_holm_by_hand():
    corrected = holm({"a": 0.03, "b": 0.01, "c": 0.04})
    assert corrected == pytest.approx({"b": 0.03, "a": 0.06, "c": 0.06})
    assert list(corrected) == ["a", "b", "c"]
    assert holm({"a": 0.9, "b": 0.8})["a"] == 1.0
    assert holm({}) == {}


def test_degenerate_samples():
    with pytest.raises(ValueError, match="at least one"):
        student_interval([])
    with pytest.raises(ValueError, match="finite"):
        student_interval([1.0, float("nan")])
    assert student_interval([0.0] * 6).p == 1.0
    assert student_interval([2.0] * 6).p == 0.0

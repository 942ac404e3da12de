"""Intervals, paired differences and Holm's correction, against SciPy and hand calculation."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fsslib.reproduction.statistics import holm, paired_difference, student_interval, verdict


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
    ):
        assert verdict(student_interval(values)) == word
    assert verdict(student_interval([5.0, 6.0, 7.0] * 4), p=0.2) == "inconclusive"


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

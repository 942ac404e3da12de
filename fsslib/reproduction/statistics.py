"""From repeated runs to a verdict: Student's t intervals, equivalence, Holm's correction, and how many would be needed.

A value stands for a unit: what was drawn independently of all others, a class split or a draw of images. Runs that
share a unit are averaged first, for seeds of one fold share its classes and its questions; episodes of one model share
its luck. Intervals are Student's t: a percentile bootstrap of nominal 95 % covers 73 % at n = 3 and 83 % at n = 5.
"""

import bisect
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

from scipy import stats

FEWEST_FOR_AN_INTERVAL = 5
FEWEST_FOR_A_VERDICT = 10
ALPHA = 0.05
POWER = 0.8
MARGIN = 1.0
"""Points of mIoU: a difference that is smaller makes no odds, for all claims alike."""

Verdict = Literal["holds", "does not hold", "no effect", "inconclusive"]


@dataclass(frozen=True)
class Interval:
    """A mean over n units, its two-sided 95 % interval, the p value of "the mean is 0" and the standard error; all but
    the mean None if n < 5."""

    mean: float
    low: float | None
    high: float | None
    n: int
    p: float | None
    error: float | None

    @property
    def ends(self) -> tuple[float, float]:
        """Of the interval; the mean twice where there is none."""
        return (self.mean, self.mean) if self.low is None else (self.low, self.high)

    def __str__(self) -> str:
        if self.low is None:
            return f"{self.mean:+.1f} (n={self.n}, too few for an interval)"
        return f"{self.mean:+.1f} [{self.low:+.1f}, {self.high:+.1f}] (n={self.n})"


def student_interval(values: Sequence[float]) -> Interval:
    """The mean of `values` with Student's t interval; fewer than five get no interval, none at all raise ValueError.

    Values that are all equal give an interval of width 0, and p is 1 when they are all 0, else 0.
    """
    n = len(values)
    if n == 0:
        raise ValueError("An interval needs at least one value.")
    if not all(math.isfinite(v) for v in values):
        raise ValueError(f"An interval needs finite values; found {list(values)}.")
    mean = fmean(values)
    if n < FEWEST_FOR_AN_INTERVAL:
        return Interval(mean, None, None, n, None, None)
    error = stdev(values, mean) / math.sqrt(n)
    if error == 0:
        return Interval(mean, mean, mean, n, 1.0 if mean == 0 else 0.0, 0.0)
    low, high = stats.t.interval(0.95, n - 1, mean, error)
    return Interval(mean, low, high, n, 2 * stats.t.sf(abs(mean) / error, n - 1), error)


def paired_difference(ours: Mapping[Hashable, float], baseline: Mapping[Hashable, float]) -> Interval:
    """`ours` minus `baseline`, unit by unit.

    Raises ValueError when the units differ, naming those without a partner: a pair must not be dropped in silence.
    """
    if lonely := set(ours) ^ set(baseline):
        raise ValueError(f"These units are in only one of the two samples: {sorted(map(str, lonely))}.")
    return student_interval([ours[key] - baseline[key] for key in sorted(ours, key=str)])


def holm(p_values: Mapping[Hashable, float]) -> dict[Hashable, float]:
    """P values corrected for having asked several questions (Holm 1979), in the order given.

    The smallest is multiplied by m, the next by m - 1, and so on; none may fall below one before it, none exceeds 1.
    """
    adjusted, floor = {}, 0.0
    for rank, key in enumerate(sorted(p_values, key=lambda k: p_values[k])):
        floor = max(floor, min(1.0, (len(p_values) - rank) * p_values[key]))
        adjusted[key] = floor
    return {key: adjusted[key] for key in p_values}


def equivalent(difference: Interval) -> bool:
    """Whether the difference is within MARGIN of 0, by two one-sided t tests at ALPHA (Schuirmann 1987).

    Which is to say that its whole 90 % interval is.
    """
    if difference.error is None:
        return False
    return bool(abs(difference.mean) + stats.t.ppf(1 - ALPHA, difference.n - 1) * difference.error < MARGIN)


def needed(difference: Interval) -> int:
    """The n at which a t test would find a true difference of MARGIN four times in five, at the spread seen here."""
    spread = difference.error * math.sqrt(difference.n)

    def power(n: int) -> float:
        return stats.nct.sf(stats.t.ppf(1 - ALPHA / 2, n - 1), n - 1, MARGIN / spread * math.sqrt(n))

    return FEWEST_FOR_A_VERDICT + bisect.bisect_left(range(FEWEST_FOR_A_VERDICT, 10**6), POWER, key=power)


def verdict(difference: Interval, *, p: float | None = None) -> Verdict:
    """What may be said of "ours is better", given n >= 10.

    "no effect" where the two are `equivalent`, even if the small difference is certain. Else the sign of a difference
    that is significant at ALPHA: "holds", or "does not hold" for one the wrong way. All else is "inconclusive". `p` is
    the corrected p value where several columns are judged together, by default the interval's own.
    """
    p = difference.p if p is None else p
    if difference.n < FEWEST_FOR_A_VERDICT or p is None:
        return "inconclusive"
    if equivalent(difference):
        return "no effect"
    return "inconclusive" if p >= ALPHA else "holds" if difference.mean > 0 else "does not hold"

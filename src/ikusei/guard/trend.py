"""Change detection for a run's metrics. A step's value is a mean over its responses, so successive steps differ by sampling noise.

    noise     s = median of |x_t - x_{t-1}| / 0.954          standard deviation of one step; robust to a trend and a few jumps
                  at least sqrt(mean of (x_t - x_{t-1})^2 / 2) / 2, since the median is 0 where most steps are equal
    window    W = a third of the number of steps, clipped to WINDOW
    change    |mean of the last W - mean of W earlier ones| > Z s sqrt(2 / W)        earlier: the first W, or the W with the highest mean
    trend     Mann-Kendall: S = sum over i < j of sign(x_j - x_i), over its standard deviation under no trend

The threshold is Z = 4 (1 + 3 / n) standard errors after n steps, not 2, since the test is repeated at every step, the highest window is a
maximum over many, and few steps give a poor estimate of the noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from statistics import median

WINDOW = (4, 12)
Z = 4.0
MEDIAN = 0.954  # of |x - y| for independent standard normal x and y: 0.6745 sqrt(2)
LAST = 512  # the last values, from which the noise and the onset of a change are estimated
MANY = 256  # the most values that Mann-Kendall is given: it compares all pairs


@dataclass(frozen=True, slots=True)
class Change:
    """The mean of the earlier window and of the last one, the standard error of their difference, and the onset of the change."""

    before: float
    now: float
    error: float
    least: float  # the threshold, in standard errors
    since: int  # index of the first value after the change

    @property
    def by(self) -> float:
        return self.now - self.before

    @property
    def rose(self) -> bool:
        return self.by > self.least * self.error

    @property
    def fell(self) -> bool:
        return self.by < -self.least * self.error


def change(values: Sequence[float]) -> Change | None:
    """The last window compared with the first; None while they overlap."""
    width = window(values)
    return None if len(values) < 2 * width else _change(values, 0, width)


def fall(values: Sequence[float]) -> Change | None:
    """The last window compared with the earlier one that has the highest mean; None while none is earlier."""
    width = window(values)
    if len(values) < 2 * width:
        return None
    upto = [0.0, *accumulate(values)]
    best = max(range(len(values) - 2 * width + 1), key=lambda at: upto[at + width] - upto[at])
    return _change(values, best, width)


def kendall(values: Sequence[float]) -> float:
    """The z-score of the Mann-Kendall trend test; 0 for fewer than four values, or if all are equal. Long series are subsampled evenly."""
    values = values[:: -(-len(values) // MANY)] if len(values) > MANY else values
    n = len(values)
    signs = sum((later > value) - (later < value) for i, value in enumerate(values) for later in values[i + 1 :])
    ties = [values.count(value) for value in set(values)]
    variance = (n * (n - 1) * (2 * n + 5) - sum(t * (t - 1) * (2 * t + 5) for t in ties)) / 18
    return (signs - math.copysign(1, signs)) / math.sqrt(variance) if n >= 4 and signs and variance > 0 else 0.0


def window(values: Sequence[float]) -> int:
    return min(max(len(values) // 3, WINDOW[0]), WINDOW[1])


def _change(values: Sequence[float], at: int, width: int) -> Change:
    before, now = _mean(values[at : at + width]), _mean(values[-width:])
    leaps = [abs(b - a) for a, b in pairwise(values[-LAST:])]
    noise = max(median(leaps) / MEDIAN, math.sqrt(math.fsum(leap**2 for leap in leaps) / len(leaps) / 2) / 2)
    return Change(before, now, noise * math.sqrt(2 / width), Z * (1 + 3 / len(values)), _since(values, at + width - 1, before, now))


def _since(values: Sequence[float], start: int, before: float, now: float) -> int:
    """The onset: the first index, within the LAST values, from which on the mean of three stays over a quarter of the way to `now`."""
    left, start = len(values) - 1, max(start, len(values) - LAST)
    while left > start and (_mean(values[max(left - 2, 0) : left + 1]) - before) * (now - before) > (now - before) ** 2 / 4:
        left -= 1
    return min(left + 1, len(values) - 1)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)

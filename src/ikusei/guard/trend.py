"""Change detection for a run's metrics. A step's value is a mean over its responses, so successive steps differ by sampling noise.

    noise     s = median of |x_t - x_{t-1}| / 0.954          noise of one step; robust against a trend and a few jumps
                  and no less than half of sqrt(mean of (x_t - x_{t-1})^2 / 2), where most steps are the same and the median is 0
    window    W = a third of the steps so far, WINDOW[0] to WINDOW[1]
    moved     |mean of the last W - mean of W before| > Z s sqrt(2 / W)        the W before: the first ones, or the best there were
    trend     Mann-Kendall: S = sum over i < j of sign(x_j - x_i), over its standard deviation under no trend

The test is repeated at every step, the best window is the best of many, and the noise is poorly estimated after few steps n: the threshold
is therefore Z = 4 (1 + 3 / n) standard errors, not 2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from statistics import median

WINDOW = (4, 12)
Z = 4.0
MEDIAN = 0.954  # of |x - y| for normal x and y: 0.6745 sqrt(2)
LAST = 512  # values, among which the noise and the beginning of a change are looked for
MANY = 256  # values: the trend looks at every two of them


@dataclass(frozen=True, slots=True)
class Change:
    """The values before and now, the standard error of the difference, and the position of the change."""

    before: float
    now: float
    error: float
    least: float  # standard errors from which on the change counts
    since: int

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
    """The last window against the first; None while they overlap."""
    width = window(values)
    return None if len(values) < 2 * width else _change(values, 0, width)


def fall(values: Sequence[float]) -> Change | None:
    """The last window against the best one before it."""
    width = window(values)
    if len(values) < 2 * width:
        return None
    upto = [0.0, *accumulate(values)]
    best = max(range(len(values) - 2 * width + 1), key=lambda at: upto[at + width] - upto[at])
    return _change(values, best, width)


def kendall(values: Sequence[float]) -> float:
    """Mann-Kendall's z of a trend; 0 of fewer than four values, or where all are equal. Of many, every so manieth is taken."""
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
    """The first position after which the mean of three never comes back to a quarter of the way; of the last values."""
    left, start = len(values) - 1, max(start, len(values) - LAST)
    while left > start and (_mean(values[max(left - 2, 0) : left + 1]) - before) * (now - before) > (now - before) ** 2 / 4:
        left -= 1
    return min(left + 1, len(values) - 1)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)

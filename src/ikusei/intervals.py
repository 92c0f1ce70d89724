"""Estimators of evaluation figures with confidence intervals: pass@k, best-of-k, means, correlations.

    pass@k    = E over prompts [1 - C(n-c, k) / C(n, k)]        c of n samples right; unbiased, arXiv:2107.03374
    best of k = E [max of k of the n values, drawn without putting back] = sum_i x_(i) C(i-1, k-1) / C(n, k)

Intervals are over prompts: they say how far the figure would move with other prompts of the same kind, the samples of one prompt being
averaged first. Values in [0, 1] get the "plus four" t interval: two pseudo-prompts of 0 and two of 1 are added, for near 1 the plain t
interval and the percentile bootstrap shrink to nothing just where they are wrong (their 95 % cover 60 to 94 %).

Left out: the plug-in 1 - (1 - c/n)^k, which is biased, and intervals by resampling.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

PSEUDO_PROMPTS = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Interval:
    """A value and its interval. In text it is `0.123 (0.100 to 0.150)`; f"{interval:+.1f}" and f"{interval:.0%}" do what they do
    with a number. For a single prompt the interval is unbounded."""

    value: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        value, low, high = (format(each, spec or ".3f") for each in (self.value, self.low, self.high))
        return f"{value} ({low} to {high})" if math.isfinite(self.low) and math.isfinite(self.high) else value

    @staticmethod
    def of(figure: Mapping[str, float | None]) -> Interval:
        """From JSON, which has null for what was not finite."""
        value, low, high = (figure[name] for name in ("value", "low", "high"))
        return Interval(math.nan if value is None else value, -math.inf if low is None else low, math.inf if high is None else high)


def pass_at_k(n: int, c: int, k: int) -> float:
    """The probability that at least one of k samples is correct, estimated from c correct ones of n. Unbiased.

    Raises:
        ValueError: unless 0 <= c <= n and 1 <= k <= n.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"pass@{k} of {c} right among {n} samples; allowed: 0 <= right <= samples, 1 <= k <= samples. Draw more samples")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def doublings(most: int) -> list[int]:
    """1, 2, 4, ... and not beyond."""
    return [1 << i for i in range(most.bit_length())]


def tries(most: int) -> list[int]:
    """The k at which pass@k is measured: 1, 2, 4, ... and `most`, the number of samples."""
    return sorted({*doublings(most), most} - {0})


def best_of(values: Sequence[float], k: int) -> float:
    """The expected maximum of k of the given values. Unbiased.

    Raises:
        ValueError: unless 1 <= k <= len(values).
    """
    n = len(values)
    if not 1 <= k <= n:
        raise ValueError(f"best of {k} among {n} values; allowed: 1 <= k <= the number of values. Draw more samples")
    return sum(x * (math.comb(i, k - 1) / math.comb(n, k)) for i, x in enumerate(sorted(values)))


def mean_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """The mean over prompts, one value each, with its t interval: "plus four" and within [0, 1] where all values are, else plain.

    A single value outside [0, 1] has an infinite interval: nothing is known of its spread.

    Raises:
        ValueError: no values, or one that is not finite.
    """
    x = np.asarray(values, dtype=float)
    if x.size == 0 or not np.isfinite(x).all():
        raise ValueError(f"mean of {x.size} values, {int((~np.isfinite(x)).sum())} of them not finite; allowed: one finite value or more")
    bounded = bool((x >= 0).all() and (x <= 1).all())
    spread = np.concatenate([x, PSEUDO_PROMPTS]) if bounded else x
    if spread.size == 1:
        return Interval(float(x[0]), -math.inf, math.inf)
    from scipy.special import stdtrit  # slow to load, and no interval is wanted before something was measured

    half = float(stdtrit(spread.size - 1, (1 + level) / 2)) * float(spread.std(ddof=1)) / math.sqrt(spread.size)
    low, high = float(spread.mean()) - half, float(spread.mean()) + half
    return Interval(float(x.mean()), max(low, 0.0), min(high, 1.0)) if bounded else Interval(float(x.mean()), low, high)


def pass_at(k: int, correct: Sequence[Sequence[bool]]) -> Interval:
    """pass@k over prompts, from which samples of each were right.

    Raises:
        ValueError: no prompts, or one with fewer than k samples.
    """
    return mean_interval([pass_at_k(len(samples), sum(samples), k) for samples in correct])


def centred(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Values minus the mean of their prompt, which removes differences between prompts."""
    _, of = np.unique(group, return_inverse=True)
    return values - (np.bincount(of, values) / np.bincount(of))[of]


def correlation(one: np.ndarray, other: np.ndarray) -> float | None:
    """Pearson's correlation of centred values; None where one of them does not vary."""
    spread = float(one.std() * other.std())
    return float((one * other).mean() / spread) if spread > 1e-12 else None

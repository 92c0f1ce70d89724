"""pass@k, best-of-k and the intervals: golden numbers, brute force, and coverage by simulation."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations
from statistics import mean

import numpy as np
import pytest
from scipy.stats import t

from ikusei.intervals import Interval, best_of, mean_interval, pass_at, pass_at_k


@pytest.mark.parametrize(
    ("n", "c", "k", "expected"),
    [(10, 3, 1, 0.3), (10, 3, 5, 0.916667), (16, 1, 8, 0.5), (128, 5, 64, 0.971181), (12, 0, 7, 0.0), (5, 3, 3, 1.0)],
)
def test_pass_at_k_golden(n: int, c: int, k: int, expected: float) -> None:
    assert pass_at_k(n, c, k) == pytest.approx(expected, abs=1e-6)


def test_pass_at_k_is_the_mean_over_all_ways_to_draw() -> None:
    samples = [True, False, False, True, False, False, False]
    for k in range(1, 8):
        assert pass_at_k(7, 2, k) == pytest.approx(mean(any(drawn) for drawn in combinations(samples, k)))


def test_best_of_golden_and_brute_force() -> None:
    values = [0.1, 0.5, 0.2, 0.9, 0.4]
    assert [best_of(values, k) for k in range(1, 6)] == pytest.approx([0.42, 0.61, 0.73, 0.82, 0.9])
    tied = [-1.0, 3.0, 3.0, -2.5]
    for k in range(1, 5):
        assert best_of(tied, k) == pytest.approx(mean(max(drawn) for drawn in combinations(tied, k)))


@pytest.mark.parametrize(("n", "c", "k"), [(4, 2, 5), (4, 5, 1), (4, -1, 1), (4, 2, 0)])
def test_pass_at_k_refuses_what_cannot_be(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match=f"pass@{k} of {c} right among {n} samples"):
        pass_at_k(n, c, k)


def test_best_of_refuses_more_than_there_are() -> None:
    with pytest.raises(ValueError, match="best of 3 among 2 values"):
        best_of([1.0, 2.0], 3)


def numbers(interval: Interval) -> tuple[float, float, float]:
    return interval.value, interval.low, interval.high


def test_interval_adds_two_zeros_and_two_ones() -> None:
    values = [0.2, 0.7, 0.9]
    added = np.array([*values, 0, 0, 1, 1])
    half = t.ppf(0.975, 6) * added.std(ddof=1) / math.sqrt(7)
    assert numbers(mean_interval(values)) == pytest.approx((0.6, added.mean() - half, added.mean() + half))


def test_interval_outside_the_unit_range_is_plain_t() -> None:
    values = [-1.0, 0.5, 2.0, 4.5]
    half = t.ppf(0.975, 3) * np.std(values, ddof=1) / 2
    assert numbers(mean_interval(values)) == pytest.approx((1.5, 1.5 - half, 1.5 + half))
    assert mean_interval([7.0]) == Interval(7.0, -math.inf, math.inf)


def test_interval_stays_in_the_unit_range_and_holds_its_value() -> None:
    for n in (1, 2, 16, 64, 1000):
        sure = mean_interval([1.0] * n)
        assert sure.value == 1.0 == sure.high and 0 <= sure.low < 1
        never = mean_interval([0.0] * n)
        assert never.value == 0.0 == never.low and never.high == pytest.approx(1 - sure.low)


@pytest.mark.parametrize("values", [[], [0.5, math.nan], [math.inf]])
def test_interval_refuses_what_has_no_mean(values: list[float]) -> None:
    with pytest.raises(ValueError, match="one finite value or more"):
        mean_interval(values)


def covered(
    draw: Callable[[np.random.Generator], np.ndarray], truth: float, interval: Callable[[np.ndarray], tuple[float, float]]
) -> float:
    rng = np.random.default_rng(7)
    bounds = [interval(draw(rng)) for _ in range(1500)]
    return sum(bool(low <= truth <= high) for low, high in bounds) / len(bounds)


def plus_four(values: np.ndarray) -> tuple[float, float]:
    made = mean_interval(values.tolist())
    return made.low, made.high


def plain_t(values: np.ndarray) -> tuple[float, float]:
    half = t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return values.mean() - half, values.mean() + half


def solved(share: float, num_prompts: int) -> Callable[[np.random.Generator], np.ndarray]:
    return lambda rng: (rng.random(num_prompts) < share).astype(float)


@pytest.mark.parametrize(("share", "num_prompts"), [(0.97, 64), (0.95, 16), (0.9, 32), (0.02, 64), (0.5, 16)])
def test_interval_covers_where_prompts_are_solved_or_not(share: float, num_prompts: int) -> None:
    assert covered(solved(share, num_prompts), share, plus_four) >= 0.94


def test_interval_covers_pass_at_1_of_prompts_that_differ() -> None:
    def draw(rng: np.random.Generator) -> np.ndarray:
        return rng.binomial(64, rng.beta(8, 1, size=64)) / 64

    assert covered(draw, 8 / 9, plus_four) >= 0.94


def test_plain_t_would_not_cover_near_one() -> None:
    assert covered(solved(0.97, 64), 0.97, plain_t) < 0.9
    assert covered(solved(0.95, 16), 0.95, plain_t) < 0.7


def test_pass_at_k_over_prompts() -> None:
    correct = [[True, False, False, False], [True, True, True, True], [False] * 4]
    assert [pass_at(k, correct).value for k in (1, 2, 4)] == pytest.approx([1.25 / 3, 1.5 / 3, 2 / 3])
    assert pass_at(2, correct) == mean_interval([0.5, 1.0, 0.0])
    with pytest.raises(ValueError, match="pass@8 of 1 right among 4 samples"):
        pass_at(8, correct[:1])


def test_how_an_interval_is_written() -> None:
    assert f"{Interval(0.1234, 0.1, 0.15)}" == "0.123 (0.100 to 0.150)"
    assert f"{Interval(-1.0, -2.5, 0.25):+.1f} {Interval(0.5, 0.25, 1.0):.0%}" == "-1.0 (-2.5 to +0.2) 50% (25% to 100%)"
    assert f"{Interval.of({'value': 2.0, 'low': None, 'high': None})}" == "2.000", "of one prompt nothing is known but the value"

"""The optimum under a KL, and best of n, against sums by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ikusei.reproduce.claims.dpo_frontier import TILTS, above, best_of, lead, preferred, tilted

REWARDS = np.array([[0.0] * 5 + [1.0] * 3 + [2.0] * 2])  # the reference: .5, .3, .2


def test_the_optimum_is_the_golden_one() -> None:
    kls, earned = tilted(REWARDS)[..., 0]
    assert np.interp(1.0, TILTS[::-1], earned[::-1]) == pytest.approx(1.35006, abs=4e-3)
    assert np.interp(1.0, TILTS[::-1], kls[::-1]) == pytest.approx(0.32283, abs=4e-3)
    assert kls[-1] == pytest.approx(-math.log(0.2), abs=1e-6) and earned[-1] == pytest.approx(2)
    assert list(kls) == sorted(kls)


def test_best_of_two_by_hand() -> None:
    kl, earned = best_of(REWARDS, 2)[:, 0]
    assert earned == pytest.approx(0.39 * 1 + 0.36 * 2)  # .25, .8^2 - .25 = .39, 1 - .64 = .36
    assert kl == pytest.approx(0.25 * math.log(0.5) + 0.39 * math.log(1.3) + 0.36 * math.log(1.8))
    assert best_of(REWARDS, 1)[0, 0] == pytest.approx(0)


def test_a_policy_is_held_against_the_optimum_at_its_own_kl() -> None:
    curve = np.array([[[0.0, 0.0], [1.0, 3.0]], [[1.0, 1.0], [2.0, 4.0]]])  # KL 0 → reward 1, KL 2 → reward 3, over two prompts
    gap, error = above(curve, np.array([[0.5, 1.5], [2.5, 2.5]]), seed=0)
    assert gap == pytest.approx(2.5 - 2.0) and error > 0


def test_between_two_policies_lie_their_mixtures() -> None:
    found = {"best_of": {"1": [0.0, 1.0]}, "points": {"dpo-1": [2.0, 3.0, 0, 1], "dpo-5": [0.5, 2.0, 0, 1], "tuned-20": [1.25, 2.1, 0, 1]}}
    assert lead(found) == [pytest.approx(2.5 - 2.1)]


def test_the_preferred_of_all_pairs_stand_as_often_as_they_win() -> None:
    assert preferred(["a", "b", "c", "d"], [3, 1, 2, 2]) == ["b", "b", "b", "c", "d"]

"""Self-consistency: the answer that most responses give.   arXiv:2203.11171

    value_i = sum over j with the answer of i of w_j            w = 1, or what the response earns (weighted voting)

Responses that say nothing after their thought have no vote. Sampling may end once the vote is decided: for certain, where the second cannot
catch up; or with an error of at most `error`, by the chance that the leader is not the commonest (arXiv:2305.11860):

    P(p_1 < p_2 | counts a >= b) = I_{1/2}(a + 1, b + 1)         under a uniform prior over the two

Left out: answers that are equal in meaning and not in letters (`canonical` may say which are).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import betainc

from ikusei.search.choosing import Canonical, answered
from ikusei.types import Response


@dataclass(frozen=True)
class Vote:
    """`weighted` counts each vote by the response's total reward, which must not be below 0."""

    weighted: bool = False
    canonical: Canonical = answered

    def values(self, responses: Sequence[Response]) -> list[float]:
        """Raises ValueError where a weight is below 0: it would be a vote against."""
        said = [self.canonical(response.text) for response in responses]
        votes: dict[str, float] = {}
        for answer, response in zip(said, responses, strict=True):
            weight = (response.total or 0.0) if self.weighted else 1.0
            if weight < 0:
                raise ValueError(f"a vote of weight {weight:.3g}; allowed: rewards of 0 or more; put a sigmoid over a learned reward")
            votes[answer] = votes.get(answer, 0.0) + weight * bool(answer)
        return [votes[answer] for answer in said]


def error_bound(said: Sequence[str]) -> float:
    """The chance that another answer than the leading one is really the commonest, judged by the second; 1 of no answers."""
    counts = [count for answer, count in Counter(said).most_common() if answer]
    first, second = [*counts, 0, 0][:2]
    return float(betainc(first + 1, second + 1, 0.5)) if first else 1.0


def decided(said: Sequence[str], left: int, error: float = 0.0) -> bool:
    """True where `left` more answers cannot change the leader, or where it is wrong with a chance of at most `error`."""
    counts = [count for answer, count in Counter(said).most_common() if answer]
    first, second = [*counts, 0, 0][:2]
    return first > second + left or error_bound(said) <= error

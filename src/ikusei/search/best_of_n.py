"""Best of n: the response with the highest reward.

    value_i = r(y_i)                KL(chosen || sampled): log n - (n - 1) / n at most   (arXiv:2009.01325)

A response whose reward failed is never chosen where another has one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ikusei.search.method import MethodSpec
from ikusei.types import Response


@dataclass(frozen=True)
class BestOfN:
    """By the total reward."""

    def values(self, responses: Sequence[Response]) -> list[float]:
        return rewards(responses)


def rewards(responses: Sequence[Response]) -> list[float]:
    """The totals; minus infinity where there is none."""
    return [-math.inf if response.total is None else response.total for response in responses]


def kl_of_best(n: int) -> float:
    """The bound above, in nats; exact where no two responses have equal rewards.

    Raises:
        ValueError: n below 1.
    """
    if n < 1:
        raise ValueError(f"best of {n}; allowed: 1 or more")
    return math.log(n) - (n - 1) / n


METHODS = (MethodSpec("best_of_n", "the answer with the highest reward among N", BestOfN(), needs=("guide",)),)

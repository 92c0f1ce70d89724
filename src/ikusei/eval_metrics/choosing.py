"""Choose one of n answers by a value for each, and estimate how often the chosen one is right.

    right(n) = E over n of the N answers, without putting back [the share of right ones among those of the largest value]

For best of n this is a sum over ranks, exact; of any other method the mean over all subsets, or over `draws` random ones where there are
more, the same for every method.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from random import Random
from statistics import fmean
from typing import Protocol

from ikusei.text.answer import split_thought
from ikusei.types import Response

Canonical = Callable[[str], str]


class Chooser(Protocol):
    """A method that chooses by a value for each response."""

    def values(self, responses: Sequence[Response]) -> list[float]:
        """A value for each response; the largest is chosen."""
        ...


def answered(text: str) -> str:
    """The text after the thought, without white space: equal texts are the same answer."""
    return "".join(split_thought(text)[1].split())


@dataclass(frozen=True)
class Vote:
    """`weighted` counts each vote by the response's total reward, which must not be below 0."""

    weighted: bool = False
    canonical: Canonical = answered

    def values(self, responses: Sequence[Response]) -> list[float]:
        """Raises ValueError where a weight is below 0: it would be a vote against."""
        answers = [self.canonical(response.text) for response in responses]
        votes: dict[str, float] = {}
        for answer, response in zip(answers, responses, strict=True):
            weight = (response.total or 0.0) if self.weighted else 1.0
            if weight < 0:
                raise ValueError(f"a vote of weight {weight:.3g}; allowed: rewards of 0 or more; put a sigmoid over a learned reward")
            votes[answer] = votes.get(answer, 0.0) + weight * bool(answer)
        return [votes[answer] for answer in answers]


def choose(chooser: Chooser, responses: Sequence[Response]) -> Response:
    """The response of the largest value; of equals the first. Raises ValueError where there is none to choose from."""
    if not responses:
        raise ValueError("choose: got no response; allowed: one or more; sample some first")
    values = chooser.values(responses)
    return responses[max(range(len(responses)), key=lambda i: (values[i], -i))]


def share_right(values: Sequence[float], right: Sequence[bool]) -> float:
    """How often the chosen answer is right, where equal values are drawn from evenly."""
    best = max(values)
    return fmean(yes for value, yes in zip(values, right, strict=True) if value == best)


def right_at(chooser: Chooser, responses: Sequence[Response], right: Sequence[bool], n: int, draws: int = 64, seed: int = 0) -> float:
    """How often the method is right when it chooses among n of these responses.

    Raises:
        ValueError: unless 1 <= n <= len(responses).
    """
    if not 1 <= n <= len(responses):
        raise ValueError(f"n={n} of {len(responses)} responses; allowed: 1 to all of them; draw more samples")
    chance, every = Random(seed), range(len(responses))
    few = comb(len(responses), n) <= draws
    shares = []
    for taken in combinations(every, n) if few else (sorted(chance.sample(every, n)) for _ in range(draws)):
        values = chooser.values([responses[i] for i in taken])
        shares.append(share_right(values, [right[i] for i in taken]))
    return fmean(shares)


def best_right_at(totals: Sequence[float], right: Sequence[bool], n: int) -> float:
    """The same for best of n, exactly: each value is the largest of a subset as often as the others can be drawn from below it.

    Raises:
        ValueError: unless 1 <= n <= len(totals).
    """
    if not 1 <= n <= len(totals):
        raise ValueError(f"n={n} of {len(totals)} responses; allowed: 1 to all of them; draw more samples")
    share, below, whole = 0.0, 0, comb(len(totals), n)
    for value in sorted(set(totals)):
        tied = [yes for total, yes in zip(totals, right, strict=True) if total == value]
        upto = below + len(tied)
        share += (comb(upto, n) - comb(below, n)) / whole * fmean(tied)
        below = upto
    return share

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

from ikusei.figures.choosing import Vote
from ikusei.search.method import MethodSpec


def error_bound(said: Sequence[str]) -> float:
    """The chance that another answer than the leading one is really the commonest, judged by the second; 1 of no answers."""
    from scipy.special import betainc  # a tenth of a second

    counts = [count for answer, count in Counter(said).most_common() if answer]
    first, second = [*counts, 0, 0][:2]
    return float(betainc(first + 1, second + 1, 0.5)) if first else 1.0


def decided(said: Sequence[str], left: int, error: float = 0.0) -> bool:
    """True where `left` more answers cannot change the leader, or where it is wrong with a chance of at most `error`."""
    counts = [count for answer, count in Counter(said).most_common() if answer]
    first, second = [*counts, 0, 0][:2]
    return first > second + left or error_bound(said) <= error


METHODS = (
    MethodSpec("vote", "N answers, of which the commonest counts", Vote()),
    MethodSpec("weighted_vote", "vote, each answer weighed by its reward", Vote(weighted=True), needs=("guide", "weights")),
)

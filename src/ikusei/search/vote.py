"""Self-consistency: the most frequent answer.   arXiv:2203.11171

    value_i = sum over j with the answer of i of w_j            w = 1, or the response's reward (weighted voting)

Responses without an answer after their thought have no vote. Sampling may stop once the vote is decided: for certain, where the second
answer cannot catch up; or where the probability that the leader is not the mode is at most `error` (arXiv:2305.11860):

    P(p_1 < p_2 | counts a >= b) = I_{1/2}(a + 1, b + 1)         under a uniform prior over the two

Left out: answers that are equal in meaning and not in letters (`canonical` may say which are).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ikusei.eval_metrics.choosing import Vote
from ikusei.search.method import MethodSpec


def error_bound(answers: Sequence[str]) -> float:
    """The probability that the second answer is more likely than the leading one; 1 without answers."""
    from scipy.special import betainc  # a tenth of a second

    counts = [count for answer, count in Counter(answers).most_common() if answer]
    first, second = [*counts, 0, 0][:2]
    return float(betainc(first + 1, second + 1, 0.5)) if first else 1.0


def decided(answers: Sequence[str], left: int, error: float = 0.0) -> bool:
    """True where `left` more answers cannot change the leader, or the leader is wrong with a probability of at most `error`."""
    counts = [count for answer, count in Counter(answers).most_common() if answer]
    first, second = [*counts, 0, 0][:2]
    return first > second + left or error_bound(answers) <= error


METHODS = (
    MethodSpec("vote", "the most frequent among N answers", Vote()),
    MethodSpec("weighted_vote", "vote, each answer weighted by its reward", Vote(weighted=True), needs=("guide", "weights")),
)

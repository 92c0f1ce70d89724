"""Minimum Bayes risk: the response with the highest mean utility against the others.   arXiv:2311.05263 (model-based), 2401.05054 (diverse)

    value_i = mean over j of u(y_i, y_j)                           Monte Carlo estimate
    value_i = sum over j of p_j u(y_i, y_j) / sum of p_j           `model_based`: distinct texts, weighted by their probability

With u = equality of answers it is the majority vote. `diverse` gives a representative and diverse subset of k:

    maximise  sum_{i in S} mean_j u(y_i, y_j) / k  -  penalty * mean over pairs i != j in S of u(y_i, y_j)

greedily, then by exchanging one at a time until no swap improves it. Left out: u by an embedding model (any function of two texts will do).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ikusei.eval_metrics.choosing import answered
from ikusei.search.method import MethodSpec
from ikusei.types import Response

if TYPE_CHECKING:
    import numpy as np

Utility = Callable[[str, str], float]


def same_answer(one: str, other: str) -> float:
    """1 where the answers after the thoughts are equal and not empty, else 0."""
    return float(answered(one) == answered(other) != "")


def overlap(one: str, other: str, size: int = 3) -> float:
    """F1 of the character runs of `size`: 1 for the same text, 0 where nothing is shared. Of shorter texts, whether they are equal."""
    a, b = (Counter(text[i : i + size] for i in range(len(text) - size + 1)) for text in (one, other))
    shared, whole = sum((a & b).values()), sum(a.values()) + sum(b.values())
    return 2 * shared / whole if whole else float(one == other)


@dataclass(frozen=True)
class MBR:
    """`utility` of a response, its reference being another."""

    utility: Utility = overlap
    model_based: bool = False

    def values(self, responses: Sequence[Response]) -> list[float]:
        import numpy as np

        texts = [response.text for response in responses]
        weight = np.array(self._weights(responses))
        return (utilities(texts, self.utility) @ weight / weight.sum()).tolist()

    def _weights(self, responses: Sequence[Response]) -> list[float]:
        if not self.model_based:
            return [1.0] * len(responses)
        logs = [math.fsum(response.logprobs or ()) for response in responses]
        first = {response.text: i for i, response in reversed([*enumerate(responses)])}
        top = max(logs)
        return [
            math.exp(log - top) if first[response.text] == i else 0.0 for i, (log, response) in enumerate(zip(logs, responses, strict=True))
        ]


def utilities(texts: Sequence[str], utility: Utility) -> np.ndarray:
    """[R, R] u(row, column), each pair of different texts computed once."""
    import numpy as np

    known: dict[tuple[str, str], float] = {}
    return np.array([[known.setdefault((a, b), utility(a, b)) if (a, b) not in known else known[a, b] for b in texts] for a in texts])


def diverse(texts: Sequence[str], k: int, utility: Utility = overlap, penalty: float = 1.0) -> list[int]:
    """The positions of k texts, in order. Raises ValueError unless 1 <= k <= the number of texts."""
    if not 1 <= k <= len(texts):
        raise ValueError(f"{k} of {len(texts)} texts; allowed: 1 to all of them")
    u = utilities(texts, utility)
    alike = (u + u.T) / 2

    def worth(chosen: Sequence[int]) -> float:
        among = alike[list(chosen)][:, list(chosen)]
        pairs = (among.sum() - among.trace()) / (len(chosen) * (len(chosen) - 1)) if len(chosen) > 1 else 0.0
        return float(u[list(chosen)].mean() - penalty * pairs)

    chosen: list[int] = []
    for _ in range(k):
        chosen.append(max((i for i in range(len(texts)) if i not in chosen), key=lambda i: worth([*chosen, i])))
    while True:
        swaps = [[*chosen[:at], i, *chosen[at + 1 :]] for at in range(k) for i in range(len(texts)) if i not in chosen]
        best = max(swaps, key=worth, default=chosen)
        if worth(best) <= worth(chosen) + 1e-12:
            return sorted(chosen)
        chosen = best


METHODS = (MethodSpec("mbr", "the answer most similar to the others, among N", MBR(), slow=True),)

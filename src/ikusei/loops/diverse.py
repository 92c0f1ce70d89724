"""Selects a representative and diverse subset of responses for annotation (AEPO, arXiv:2405.13541).

    maximise over sets S of k answers out of n:
        sum_{i in S, j} u(i, j) / ((n - 1) k)   -   diversity * sum_{i, j in S} u(i, j) / (k (k - 1))           i and j differ

u is the cosine similarity of character-trigram counts, which needs no model and no tokenizer; the paper uses sentence embeddings.
A set is grown greedily from each response; the best of them is improved by swapping one response at a time. For k = 2 this is exact.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
N = 3  # characters of an n-gram


def most_representative(texts: Sequence[str], count: int, diversity: float = 1.0) -> list[int]:
    """Indices of `count` texts, ascending; all of them where there are no more."""
    if len(texts) <= count:
        return list(range(len(texts)))
    u = similarity(texts)
    grown = [_grown(u, first, count, diversity) for first in range(len(texts))]
    chosen = max(grown, key=lambda each: worth(u, each, diversity))
    while better := _exchanged(u, chosen, diversity):
        chosen = better
    return sorted(chosen)


def similarity(texts: Sequence[str]) -> Array:
    """[n, n] cosine similarities, 0 on the diagonal."""
    counts = [Counter(padded[i : i + N] for i in range(len(padded) - N + 1)) for padded in (f"\x02{text}\x03\x03" for text in texts)]
    place = {gram: i for i, gram in enumerate(dict.fromkeys(gram for each in counts for gram in each))}
    vectors = np.zeros((len(texts), len(place)))
    for row, each in zip(vectors, counts, strict=True):
        row[[place[gram] for gram in each]] = list(each.values())
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    u = vectors @ vectors.T
    np.fill_diagonal(u, 0.0)
    return u


def worth(u: Array, chosen: Sequence[int], diversity: float) -> float:
    """The objective above, of the set `chosen`."""
    k, rows = len(chosen), list(chosen)
    inside = u[np.ix_(rows, rows)].sum()
    return float(u[rows].sum() / ((len(u) - 1) * k) - diversity * inside / max(1, k * (k - 1)))


def _grown(u: Array, first: int, count: int, diversity: float) -> list[int]:
    chosen = [first]
    while len(chosen) < count:
        left = [i for i in range(len(u)) if i not in chosen]
        chosen.append(max(left, key=lambda i: worth(u, [*chosen, i], diversity)))
    return chosen


def _exchanged(u: Array, chosen: Sequence[int], diversity: float) -> list[int] | None:
    """The set after the best swap of one response, or None where no swap improves it."""
    sets = [[*chosen[:at], i, *chosen[at + 1 :]] for at in range(len(chosen)) for i in range(len(u)) if i not in chosen]
    best = max(sets, key=lambda each: worth(u, each, diversity))
    return best if worth(u, best, diversity) > worth(u, chosen, diversity) + 1e-12 else None

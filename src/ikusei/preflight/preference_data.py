"""Statistics of preference data, before anything learns from it.

    longer       share of pairs whose better answer has more characters: the accuracy of always preferring the longer answer
    agreement    of pairs that were judged more than once, how often two judgements agree: an upper bound on a reward model's accuracy

Left out: who judged (rows do not say); agreement among whole rankings.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

from ikusei.intervals import Interval, mean_interval
from ikusei.types import Group


@dataclass(frozen=True)
class PreferenceData:
    """Statistics of `pairs` pairs. `repeated` of them were judged more than once; `agreement` is over these alone."""

    pairs: int
    longer: Interval
    repeated: int
    agreement: Interval | None


def preference_data(groups: Sequence[Group]) -> PreferenceData | None:
    """The statistics of these rows; None where no row has a pair."""
    longer: list[float] = []
    votes: dict[tuple[str, str, str], list[bool]] = defaultdict(list)
    for group in groups:
        for better, worse in group.pairs:
            good, bad = group.responses[better].text, group.responses[worse].text
            longer.append(0.5 if len(good) == len(bad) else float(len(good) > len(bad)))
            first, second = sorted((good, bad))
            votes[group.prompt.text, first, second].append(good == first)
    if not longer:
        return None
    twice = [(len(each), sum(each)) for each in votes.values() if len(each) > 1]
    agreed = [(comb(yes, 2) + comb(n - yes, 2)) / comb(n, 2) for n, yes in twice]
    return PreferenceData(len(longer), mean_interval(longer), len(twice), mean_interval(agreed) if agreed else None)

"""What preference data says of itself, before anything learns from it.

    longer       the share of pairs whose better answer has more characters: so often is right who only measures lengths
    agreement    of pairs that were judged more than once, how often two judgements agree: no reward model can be more right than people are

Left out: who judged, which rows do not say; agreement among whole rankings.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

from ikusei.intervals import Interval, mean_interval
from ikusei.types import Group


@dataclass(frozen=True)
class Judgements:
    """Of so many `pairs`. `repeated` of them were judged more than once, and only these have an `agreement`."""

    pairs: int
    longer: Interval
    repeated: int
    agreement: Interval | None


def judgements(groups: Sequence[Group]) -> Judgements | None:
    """None where no row has a pair."""
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
    return Judgements(len(longer), mean_interval(longer), len(twice), mean_interval(agreed) if agreed else None)

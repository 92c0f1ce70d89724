"""A claim of the field, with its experiment and criteria, which are fixed before anything is measured.

    measure     the experiment, from a seed to figures
    criteria    each a sentence, and a test of the figures of one seed
    verdict     held: every criterion in every seed.  not held: some criterion in no seed.  Else undecided at this scale

A verdict needs no threshold of its own: where seeds disagree, it is undecided.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ikusei.reproduce.workspace import Workspace

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SeedResult = Mapping[str, Any]  # the figures of one seed, in JSON's types
ClaimVerdict = Literal["held", "not held", "undecided"]


@dataclass(frozen=True)
class Criterion:
    """`says` states the criterion, `holds` tests it on the result of one seed, `shows` gives the figures that decide it, in short."""

    says: str
    holds: Callable[[SeedResult], bool]
    shows: Callable[[SeedResult], str]


@dataclass(frozen=True)
class Claim:
    """`says` is the claim as the field states it, `setup` the experiment here. `draw` gets one pair of axes for each panel, and the result
    of each seed. A `quick` claim takes less than a minute a seed."""

    says: str
    source: str
    setup: str
    measure: Callable[[Workspace], SeedResult]
    criteria: tuple[Criterion, ...]
    draw: Callable[[Sequence[Axes], Sequence[SeedResult]], None]
    panels: int = 1
    quick: bool = False

    def verdict(self, found: Sequence[SeedResult]) -> ClaimVerdict:
        """The verdict over all seeds."""
        held = [[criterion.holds(each) for each in found] for criterion in self.criteria]
        if all(all(seeds) for seeds in held):
            return "held"
        return "undecided" if all(any(seeds) for seeds in held) else "not held"

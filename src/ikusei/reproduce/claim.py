"""A claim of the field, and what would show it: fixed here before anything is measured.

    measure     one seed's experiment, from a seed to figures
    criteria    each a sentence and a yes or no to the figures of one seed
    verdict     held: every criterion in every seed.  not held: some criterion in no seed.  Else undecided at this scale

So a verdict needs no threshold of its own: what one seed shows and another does not is called undecided.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ikusei.reproduce.workspace import Lab

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Finding = Mapping[str, Any]  # what one seed found, in JSON's types
ClaimVerdict = Literal["held", "not held", "undecided"]


@dataclass(frozen=True)
class Criterion:
    """`says` what must be so, `holds` whether it is, `shows` the figures that decide it, in a few letters."""

    says: str
    holds: Callable[[Finding], bool]
    shows: Callable[[Finding], str]


@dataclass(frozen=True)
class Claim:
    """`says` is the claim as the field states it, `setup` how it is tried here. `draw` gets one pair of axes a panel, and what each seed
    found. A `quick` claim takes less than a minute a seed."""

    says: str
    source: str
    setup: str
    measure: Callable[[Lab], Finding]
    criteria: tuple[Criterion, ...]
    draw: Callable[[Sequence[Axes], Sequence[Finding]], None]
    panels: int = 1
    quick: bool = False

    def verdict(self, found: Sequence[Finding]) -> ClaimVerdict:
        """Of all seeds together."""
        held = [[criterion.holds(each) for each in found] for criterion in self.criteria]
        if all(all(seeds) for seeds in held):
            return "held"
        return "undecided" if all(any(seeds) for seeds in held) else "not held"

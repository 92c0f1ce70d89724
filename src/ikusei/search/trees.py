"""Search trees of partial responses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ikusei.samplers.partial import Partial
from ikusei.search.best_of_n import rewards
from ikusei.search.method import Guide
from ikusei.types import Group


@dataclass(frozen=True)
class Candidate:
    """A partial response and the scores of its steps."""

    partial: Partial
    scores: tuple[float, ...] = ()

    @property
    def ended(self) -> bool:
        return self.partial.response.stop is not None


@dataclass
class Tree:
    """The kept candidates of prompt number `prompt`: unfinished ones, and finished ones."""

    prompt: int
    growing: list[Candidate]
    ended: list[Candidate]


def scored_step(trees: Sequence[Tree], longer: Sequence[Sequence[Partial]], guide: Guide) -> list[list[Candidate]]:
    """Each tree's candidates after a step, with the step's score. `longer` are the continuations of all growing candidates, in order."""
    written = iter(longer)
    steps = [[Candidate(partial, parent.scores) for parent in tree.growing for partial in next(written)] for tree in trees]
    groups = guide([Group(row[0].partial.prompt, tuple(each.partial.response for each in row)) for row in steps])
    scored = zip(steps, (rewards(group.responses) for group in groups), strict=True)
    return [[Candidate(c.partial, (*c.scores, score)) for c, score in zip(row, scores, strict=True)] for row, scores in scored]

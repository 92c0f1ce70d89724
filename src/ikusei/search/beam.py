"""Search in steps of text, led by a guide that scores what is written so far.   arXiv:2408.03314; DVTS: Hugging Face's search-and-learn

    n candidates write a step each ─► the guide scores them ─► of each tree the best 1 / width stay ─► each goes on in `width` ways ─► ...

    beam     one tree of n: the best n / width of all
    DVTS     n / width trees of `width`, each keeping its best one, so that one lucky beginning does not push out the others

    value = the last step's score, the smallest, or the product of all

Every answer that comes to an end is a candidate at the end, also one that was not among the best: it is there and paid for. A search is
over when what stays has ended. With width 1 all go on, so that it is best of n. Left out: looking ahead before a step is scored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from ikusei.samplers.continuation import Writer
from ikusei.samplers.partial import Draft
from ikusei.search.best_of_n import BestOfN, rewards
from ikusei.search.choosing import Chooser, choose
from ikusei.search.thinker import Found, Guide
from ikusei.types import Group, Prompt, Response, Score


@dataclass(frozen=True)
class Leaf:
    """A candidate and the scores of its steps."""

    draft: Draft
    scores: tuple[float, ...] = ()


@dataclass(frozen=True)
class Beam:
    """A step ends with one of `stop`, or after `step_tokens`. `chooser` reads the values as the responses' totals."""

    n: int = 16
    width: int = 4
    diverse: bool = False
    stop: tuple[str, ...] = ("\n",)
    step_tokens: int = 64
    aggregate: Literal["last", "min", "prod"] = "last"
    chooser: Chooser = field(default_factory=BestOfN)

    def __post_init__(self) -> None:
        if min(self.n, self.width, self.step_tokens) < 1 or self.n % self.width or self.aggregate not in ("last", "min", "prod"):
            raise ValueError(
                f"got n={self.n}, width={self.width}, step_tokens={self.step_tokens}, aggregate={self.aggregate!r}; allowed: 1 or more, "
                "n a multiple of width, aggregate last, min or prod"
            )

    def think(self, writer: Writer, prompts: Sequence[Prompt], guide: Guide | None = None) -> list[Found]:
        """Raises ValueError without a guide."""
        if guide is None:
            raise ValueError("beam: no guide; it needs something that scores unfinished answers: a reward model, or a function")
        trees = self.n // self.width if self.diverse else 1
        each, keep = self.n // trees, self.n // trees // self.width
        tokens, ended = [0] * len(prompts), [list[Leaf]() for _ in prompts]
        stayed = [list[Leaf]() for _ in range(trees * len(prompts))]  # tree t is of prompt t // trees
        asked = [(t, Leaf(Draft(prompt))) for t, prompt in enumerate(prompt for prompt in prompts for _ in range(trees))]
        num = each
        while asked:
            fresh = [list[Leaf]() for _ in stayed]
            drafts = writer.write([leaf.draft for _, leaf in asked], num, self.stop, [self.step_tokens] * len(asked))
            for (t, leaf), row in zip(asked, drafts, strict=True):
                fresh[t] += [Leaf(draft, leaf.scores) for draft in row]
                tokens[t // trees] += sum(draft.written for draft in row)
            for t, leaves in _judged(fresh, guide):
                ended[t // trees] += [leaf for leaf in leaves if leaf.draft.response.stop]
                stayed[t] = sorted([*stayed[t], *leaves], key=self._value, reverse=True)[:keep]
            asked = [(t, leaf) for t, tree in enumerate(stayed) for leaf in tree if not leaf.draft.response.stop]
            stayed = [[leaf for leaf in tree if leaf.draft.response.stop] for tree in stayed]
            num = self.width
        done = [tuple(self._answer(leaf) for leaf in leaves) for leaves in ended]
        return [Found(choose(self.chooser, row), row, spent) for row, spent in zip(done, tokens, strict=True)]

    def _value(self, leaf: Leaf) -> float:
        """Raises ValueError for a product of scores below 0, which would say nothing."""
        if self.aggregate == "prod" and -math.inf < min(leaf.scores) < 0:
            raise ValueError(f"a step's score of {min(leaf.scores):.3g}; allowed for a product: 0 or more; put a sigmoid over the guide")
        lost = -math.inf in leaf.scores
        return -math.inf if lost else {"last": leaf.scores[-1], "min": min(leaf.scores), "prod": math.prod(leaf.scores)}[self.aggregate]

    def _answer(self, leaf: Leaf) -> Response:
        value = self._value(leaf)
        return replace(leaf.draft.response, score=Score(value if math.isfinite(value) else None))


def _judged(trees: Sequence[Sequence[Leaf]], guide: Guide) -> list[tuple[int, list[Leaf]]]:
    """The trees that have grown, by number, each new leaf with the score of its step."""
    grown = [(t, tree) for t, tree in enumerate(trees) if tree]
    groups = guide([Group(tree[0].draft.prompt, tuple(leaf.draft.response for leaf in tree)) for _, tree in grown])
    scored = zip(grown, map(rewards, (group.responses for group in groups)), strict=True)
    return [(t, [Leaf(leaf.draft, (*leaf.scores, s)) for leaf, s in zip(tree, scores, strict=True)]) for (t, tree), scores in scored]

"""Beam search over steps of text, guided by scores of partial responses.   arXiv:2408.03314; DVTS: Hugging Face's search-and-learn

    n candidates sample a step each ─► the guide scores them ─► the best 1 / width of each tree are kept ─► `width` continuations of each

    beam     one tree of n candidates, which keeps its best n / width
    DVTS     n / width trees of `width` candidates, each of which keeps its best one: more diverse, since no prefix can take over all trees

    value = the last step's score, the smallest, or the product of all (`aggregate`)

Every finished response is a candidate in the final choice, even one that was not kept at its step. The search ends when all kept candidates
are finished. With width 1 all are kept, so it is best of n. Left out: lookahead before a step is scored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from ikusei.eval_metrics.choosing import Chooser, choose
from ikusei.samplers.continuation import Writer
from ikusei.samplers.partial import Partial
from ikusei.search.best_of_n import BestOfN
from ikusei.search.method import Guide, MethodSpec, Result
from ikusei.search.trees import Candidate, Tree, scored_step
from ikusei.types import Prompt, Response, Score

WIDTH = 4  # the default where only n is given, as in search-and-learn


@dataclass(frozen=True)
class Beam:
    """A step ends at a string of `stop`, or after `step_tokens` tokens. `chooser` sees each response's value as its total reward."""

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

    def run(self, writer: Writer, prompts: Sequence[Prompt], guide: Guide | None = None) -> list[Result]:
        """Raises ValueError without a guide."""
        if guide is None:
            raise ValueError("beam: no guide; a reward model or a function that scores partial responses is needed")
        num_trees = self.n // self.width if self.diverse else 1  # for each prompt
        branches = self.n // num_trees  # continuations of each candidate: at the first step the size of the tree, then `width`
        num_best = branches // self.width  # candidates kept in each tree
        trees = [Tree(p, [Candidate(Partial(prompt))], []) for p, prompt in enumerate(prompts) for _ in range(num_trees)]
        answers: list[list[Response]] = [[] for _ in prompts]
        num_tokens = [0] * len(prompts)
        while growing := [tree for tree in trees if tree.growing]:
            partials = [candidate.partial for tree in growing for candidate in tree.growing]
            longer = writer.write(partials, branches, self.stop, [self.step_tokens] * len(partials))
            for tree, candidates in zip(growing, scored_step(growing, longer, guide), strict=True):
                num_tokens[tree.prompt] += sum(candidate.partial.written for candidate in candidates)
                answers[tree.prompt] += [self._answer(candidate) for candidate in candidates if candidate.ended]
                best = sorted([*tree.ended, *candidates], key=self._value, reverse=True)[:num_best]
                tree.growing = [candidate for candidate in best if not candidate.ended]
                tree.ended = [candidate for candidate in best if candidate.ended]
            branches = self.width
        return [Result(choose(self.chooser, row), tuple(row), spent) for row, spent in zip(answers, num_tokens, strict=True)]

    def _value(self, candidate: Candidate) -> float:
        """The value by `aggregate`. Raises ValueError for a product of scores below 0, which is meaningless."""
        scores = candidate.scores
        if self.aggregate == "prod" and -math.inf < min(scores) < 0:
            raise ValueError(f"a step's score of {min(scores):.3g}; allowed for a product: 0 or more; apply a sigmoid to the guide")
        return -math.inf if -math.inf in scores else {"last": scores[-1], "min": min(scores), "prod": math.prod(scores)}[self.aggregate]

    def _answer(self, candidate: Candidate) -> Response:
        value = self._value(candidate)
        return replace(candidate.partial.response, score=Score(value if math.isfinite(value) else None))


METHODS = (
    MethodSpec(
        "beam", "N candidates, the best quarter kept after each step", make=lambda n, step: Beam(n, min(n, WIDTH), False, (step,)),
        needs=("guide", "steps"), least=WIDTH,
    ),
    MethodSpec(
        "dvts", "beam search in N/4 separate trees of 4, each keeping its best", make=lambda n, step: Beam(n, min(n, WIDTH), True, (step,)),
        needs=("guide", "steps"), least=2 * WIDTH,
    ),
)  # fmt: skip

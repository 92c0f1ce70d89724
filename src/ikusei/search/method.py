"""A test-time method: what it is given, what it gives back, and the record that names it.

    Method.run(writer, prompts, guide) ─► Result for each prompt

A guide scores answers, also unfinished ones, a batch of groups at a time; `RewardWorkers.score` is one. It is never the grader, or the
search would be told what is right.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from ikusei.figures.choosing import Chooser
from ikusei.samplers.continuation import Writer
from ikusei.types import Group, Prompt, Response, Score

Guide = Callable[[Sequence[Group]], list[Group]]  # the same groups with totals
Need = Literal["guide", "weights", "steps", "turns"]


@dataclass(frozen=True)
class Result:
    """What a method came to. `tokens` counts all that were written, also those that were dropped."""

    chosen: Response
    responses: tuple[Response, ...]  # those that it was chosen from
    tokens: int


class Method(Protocol):
    """A strategy for spending compute on an answer: a frozen value."""

    def run(self, writer: Writer, prompts: Sequence[Prompt], guide: Guide | None = None) -> list[Result]:
        """One for each prompt, in order. Depends on the writer's seed and on the prompts alone."""
        ...


@dataclass(frozen=True)
class MethodSpec:
    """A method by name, for `--think NAME:Nx` and `ikusei scale`. It stands in its method's file, in a tuple METHODS (see methods.py).

    A *pooled* one is a `chooser` among N independent answers, so that all pooled ones can share the same answers; any other is built by
    `make` of N and of the text that ends a step. `summary` says in one line what it does with N.

    needs    guide      a reward that scores answers          weights    and whose scores are 0 or more
             steps      the text that ends a step             turns      a chat template, for a further turn
    unit     what N counts: answers, extensions of a thought, or tokens. `ikusei scale` tries powers of two from `least` to `most` (None: to
             the end), and one that is `slow` only where it is asked for
    """

    name: str
    summary: str
    chooser: Chooser | None = None
    make: Callable[[int, str], Method] | None = None
    needs: tuple[Need, ...] = ()
    slow: bool = False
    unit: Literal["answers", "extensions", "tokens"] = "answers"
    least: int = 2
    most: int | None = None

    def __post_init__(self) -> None:
        assert (self.chooser is None) != (self.make is None), f"{self.name}: give a chooser or make"


def by_function(function: Callable[[Prompt, str], float | None]) -> Guide:
    """A function of the prompt and of what is written so far, as a guide."""

    def scored(group: Group) -> Group:
        totals = [function(group.prompt, response.text) for response in group.responses]
        return replace(group, responses=tuple(replace(r, score=Score(total)) for r, total in zip(group.responses, totals, strict=True)))

    return lambda groups: [scored(group) for group in groups]


def squashed(guide: Guide) -> Guide:
    """With a sigmoid over each total, for votes and products, which need weights of 0 or more. Of a reward model it is the chance that an
    answer is preferred to one of score 0."""

    def small(response: Response) -> Response:
        if response.score is None or response.score.total is None:
            return response
        total = 0.5 + 0.5 * math.tanh(response.score.total / 2)
        return replace(response, score=replace(response.score, total=total))

    return lambda groups: [replace(group, responses=tuple(map(small, group.responses))) for group in guide(groups)]

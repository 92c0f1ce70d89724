"""The interface of a test-time method, its result, and its record in the registry.

    Method.run(writer, prompts, guide) ─► Result for each prompt

A guide scores responses, also unfinished ones, a batch of groups at a time; `RewardWorkers.score` is one. The grader must not be the guide:
the search would then see the correct answers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from ikusei.eval_metrics.choosing import Chooser
from ikusei.samplers.continuation import Writer
from ikusei.types import Group, Prompt, Response, Score

Guide = Callable[[Sequence[Group]], list[Group]]  # the same groups with totals
Need = Literal["guide", "weights", "steps", "turns"]


@dataclass(frozen=True)
class Result:
    """The result of a method. `tokens` counts all sampled tokens, discarded ones included."""

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
    """A guide from a function of the prompt and the text so far."""

    def scored(group: Group) -> Group:
        totals = [function(group.prompt, response.text) for response in group.responses]
        return replace(group, responses=tuple(replace(r, score=Score(total)) for r, total in zip(group.responses, totals, strict=True)))

    return lambda groups: [scored(group) for group in groups]


def squashed(guide: Guide) -> Guide:
    """The guide with a sigmoid over each total, for votes and products, which need weights of 0 or more. For a Bradley-Terry reward model
    that is the probability that the response is preferred to one with reward 0."""

    def small(response: Response) -> Response:
        if response.score is None or response.score.total is None:
            return response
        total = 0.5 + 0.5 * math.tanh(response.score.total / 2)
        return replace(response, score=replace(response.score, total=total))

    return lambda groups: [replace(group, responses=tuple(map(small, group.responses))) for group in guide(groups)]

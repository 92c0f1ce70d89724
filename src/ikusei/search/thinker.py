"""What a way to think is given and what it gives back.

    Thinker.think(writer, prompts, guide) ─► Found for each prompt

A guide scores answers, also unfinished ones, a batch of groups at a time; `RewardWorkers.score` is one. It is never the grader, or the
search would be told what is right.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from ikusei.samplers.continuation import Writer
from ikusei.types import Group, Prompt, Response, Score

Guide = Callable[[Sequence[Group]], list[Group]]  # the same groups with totals


@dataclass(frozen=True)
class Found:
    """What thinking came to. `tokens` counts all that were written, also those that were dropped."""

    chosen: Response
    responses: tuple[Response, ...]  # those that it was chosen from
    tokens: int


class Thinker(Protocol):
    """A way to spend compute on an answer: a frozen value."""

    def think(self, writer: Writer, prompts: Sequence[Prompt], guide: Guide | None = None) -> list[Found]:
        """One for each prompt, in order. Depends on the writer's seed and on the prompts alone."""
        ...


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

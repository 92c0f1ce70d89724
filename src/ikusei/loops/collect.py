"""Answers of the model itself, scored and put in order: pairs, rankings or the best answers, as rows for the methods that learn from data.

    prompts ─► Sampler ─► groups ─► rewards ─► one JSON line a prompt, in the shapes that `tasks/files.py` reads

    rankings   prompt, responses, ranking      every different answer; equal totals tie
    pairs      prompt, chosen, rejected        one of the best and one of the worst; with choose "threshold" the first written that
                                               earns `least` or more and the first that earns less
    best       prompt, completion              the best answer, where it earns `least` or more
    answers    prompt, responses               every different answer, for people to judge (rewards/votes.py)

The prompt's other columns stay, so that rewards can judge its answers again. A prompt whose answers all earn the same has no order; it is
left out of pairs and rankings, and counted. Where judging is dear (people, a large model), `judged` says how many of a prompt's answers
are judged: those that stand best for all of them and are unlike each other (diverse.py). Rows come in the order of asking, and a prompt's
answers depend on the seed and on it alone, so an interrupted collection goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from ikusei.guard.outcomes import too_many_failures
from ikusei.guard.workers import RewardWorkers
from ikusei.loops.data import Rows
from ikusei.loops.diverse import most_telling
from ikusei.loops.order import in_order
from ikusei.loops.steps import RewardsFailed, StopAsked
from ikusei.protocols import Sampler
from ikusei.types import Group, Response, Sampling


@dataclass(frozen=True)
class CollectSettings:
    """`num_prompts` training prompts with `num_responses` answers each, `prompts_per_step` at one time."""

    samples: ClassVar[bool] = True

    kind: Literal["rankings", "pairs", "best", "answers"] = "rankings"
    num_prompts: int = 256
    num_responses: int = 4
    prompts_per_step: int = 32
    least: float = 1.0  # of kind best, and of choose "threshold"
    choose: Literal["best_worst", "threshold"] = "best_worst"  # of kind pairs
    judged: int = 0  # answers of each prompt; 0: all
    diversity: float = 1.0  # how unlike each other these are to be, against how well they stand for the others

    @property
    def needs_rewards(self) -> bool:
        return self.kind != "answers"

    def __post_init__(self) -> None:
        if self.judged not in (0, *range(2, self.num_responses + 1)) or self.diversity < 0:
            raise ValueError(
                f"got judged={self.judged}, diversity={self.diversity}; allowed: judged 0 (all) or 2 to "
                f"num_responses={self.num_responses}, diversity 0 or more"
            )
        if min(self.num_prompts, self.prompts_per_step) < 1 or self.num_responses < (1 if self.kind == "best" else 2):
            raise ValueError(
                f"got num_prompts={self.num_prompts}, num_responses={self.num_responses}, prompts_per_step={self.prompts_per_step}; "
                "allowed: 1 or more, and 2 or more responses where they are compared"
            )


@dataclass(frozen=True)
class Collected:
    """A step's prompts: the scored groups, and the row made of each, None where it has none."""

    number: int  # 1 for the first
    written: list[Group]  # every answer, also those that were not judged
    groups: list[Group]
    rows: list[dict[str, Any] | None]


@dataclass(frozen=True)
class Collect:
    """The parts of a collection, put together."""

    sampler: Sampler
    rows: Rows
    workers: RewardWorkers
    sampling: Sampling
    settings: CollectSettings
    seed: int

    @property
    def num_steps(self) -> int:
        return -(-self.settings.num_prompts // self.settings.prompts_per_step)

    def steps(self, start: int, stop: StopAsked) -> Iterator[Collected]:
        """Steps `start` + 1 to the last; ends early once `stop` is asked. Raises RewardsFailed."""
        for number in range(start, self.num_steps):
            begin = number * self.settings.prompts_per_step
            count = min(self.settings.prompts_per_step, self.settings.num_prompts - begin)
            prompts = self.rows.prompts_from(begin, count)
            written = list(self.sampler.sample(prompts, self.settings.num_responses, self.sampling, self.seed))
            groups = in_order(prompts, self.workers.score(map(self.narrowed, written)))
            problem = too_many_failures(groups)
            if problem:
                raise RewardsFailed(problem)
            yield Collected(number + 1, written, groups, [row_of(group, self.settings) for group in groups])
            if stop:
                return

    def narrowed(self, group: Group) -> Group:
        """The group with those of its answers that are judged: all of them, or some of those that are whole and differ."""
        different = {response.text: response for response in reversed(group.responses) if _is_whole(response)}
        if self.settings.judged == 0 or not different:
            return group
        texts = [text for text in dict.fromkeys(response.text for response in group.responses) if text in different]
        chosen = most_telling(texts, self.settings.judged, self.settings.diversity)
        return replace(group, responses=tuple(different[texts[i]] for i in chosen))


def row_of(group: Group, settings: CollectSettings) -> dict[str, Any] | None:
    """The row of a group, or None where it has none. Of answers with the same text the first counts, of equal totals the first written.
    Answers that were cut off are left out: as data they would seem to end there."""
    whole = [response for response in group.responses if _is_whole(response)]
    asked = group.prompt.asked
    row = {**group.prompt.columns, "prompt": list(asked) if isinstance(asked, tuple) else asked or group.prompt.text}
    if settings.kind == "answers":
        different = list(dict.fromkeys(response.text for response in whole))
        return {**row, "responses": different} if len(different) > 1 else None
    earned: dict[str, float] = {}
    for response in whole:
        if response.total is not None:
            earned.setdefault(response.text, response.total)
    if not earned:
        return None
    best, worst = max(earned, key=earned.__getitem__), min(earned, key=earned.__getitem__)
    if settings.kind == "best":
        return {**row, "completion": best, "reward": earned[best]} if earned[best] >= settings.least - 1e-9 else None
    if earned[best] == earned[worst]:
        return None
    if settings.kind == "pairs" and settings.choose == "threshold":
        enough = [text for text, total in earned.items() if total >= settings.least - 1e-9]
        less = [text for text, total in earned.items() if total < settings.least - 1e-9]
        if not enough or not less:
            return None
        best, worst = enough[0], less[0]
    if settings.kind == "pairs":
        return {**row, "chosen": best, "rejected": worst, "rewards": [earned[best], earned[worst]]}
    order = sorted(set(earned.values()), reverse=True)
    ranking = [1 + order.index(total) for total in earned.values()]
    return {**row, "responses": list(earned), "ranking": ranking, "rewards": list(earned.values())}


def _is_whole(response: Response) -> bool:
    return bool(response.text.strip()) and response.stop != "length"

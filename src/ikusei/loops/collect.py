"""Collects training data from the model's own samples: pairs, rankings or the best answers, one JSON line for each prompt.

    prompts ─► Sampler ─► groups ─► rewards ─► rows in the shapes that `tasks/files.py` reads

    rankings   prompt, responses, ranking      every distinct response; equal rewards tie
    pairs      prompt, chosen, rejected        the highest and the lowest reward; with choose "threshold" the first response whose
                                               reward is `least` or more, and the first below it
    best       prompt, completion              the response with the highest reward, where that is `least` or more
    answers    prompt, responses               every distinct response, for people to rate (rewards/votes.py)

The prompt's other columns stay, so that rewards can be computed again. A prompt whose responses all have the same reward gives no pair and
no ranking; it is left out and counted. Where a reward is expensive (people, a large model), `judged` limits how many responses of each
prompt are scored: a representative and diverse subset (diverse.py). Rows are written in the order of the prompts. Samples depend on the
seed and the prompt alone, so an interrupted collection resumes where it stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from ikusei.guard.outcomes import too_many_failures
from ikusei.guard.workers import RewardWorkers
from ikusei.loops.data import Rows
from ikusei.loops.diverse import most_representative
from ikusei.loops.order import in_order
from ikusei.loops.steps import RewardsFailed, StopRequest
from ikusei.protocols import Sampler
from ikusei.types import Group, Response, Sampling


@dataclass(frozen=True)
class CollectSettings:
    """`num_prompts` training prompts with `num_responses` responses each, `prompts_per_step` in each step."""

    samples: ClassVar[bool] = True

    kind: Literal["rankings", "pairs", "best", "answers"] = "rankings"
    num_prompts: int = 256
    num_responses: int = 4
    prompts_per_step: int = 32
    least: float = 1.0  # of kind best, and of choose "threshold"
    choose: Literal["best_worst", "threshold"] = "best_worst"  # of kind pairs
    judged: int = 0  # responses scored for each prompt; 0: all
    diversity: float = 1.0  # weight of their dissimilarity, against how representative they are (diverse.py)

    @property
    def needs_rewards(self) -> bool:
        return self.kind != "answers"

    def is_enough(self, reward: float) -> bool:
        """Rewards are sums: 0.7 + 0.2 + 0.1 must reach 1."""
        return reward >= self.least - 1e-9

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
    """The result of a step: the scored groups, and the row of each, None where it gives none."""

    number: int  # 1 for the first
    written: list[Group]  # with every response, also those that were not scored
    groups: list[Group]
    rows: list[dict[str, Any] | None]


@dataclass(frozen=True)
class Collect:
    """A collection run, ready to start."""

    sampler: Sampler
    rows: Rows
    workers: RewardWorkers
    sampling: Sampling
    settings: CollectSettings
    seed: int

    @property
    def num_steps(self) -> int:
        return -(-self.settings.num_prompts // self.settings.prompts_per_step)

    def steps(self, start: int, stop: StopRequest) -> Iterator[Collected]:
        """Steps `start` + 1 to the last; ends early once `stop` is requested. Raises RewardsFailed."""
        for number in range(start, self.num_steps):
            begin = number * self.settings.prompts_per_step
            count = min(self.settings.prompts_per_step, self.settings.num_prompts - begin)
            prompts = self.rows.prompts_from(begin, count)
            written = list(self.sampler.sample(prompts, self.settings.num_responses, self.sampling, self.seed))
            groups = in_order(prompts, self.workers.score(map(self.to_score, written)))
            problem = too_many_failures(groups)
            if problem:
                raise RewardsFailed(problem)
            yield Collected(number + 1, written, groups, [row_of(group, self.settings) for group in groups])
            if stop:
                return

    def to_score(self, group: Group) -> Group:
        """The group with the responses to score: all, or a subset of the complete and distinct ones."""
        different = {response.text: response for response in reversed(group.responses) if _is_complete(response)}
        if self.settings.judged == 0 or not different:
            return group
        texts = [text for text in dict.fromkeys(response.text for response in group.responses) if text in different]
        chosen = most_representative(texts, self.settings.judged, self.settings.diversity)
        return replace(group, responses=tuple(different[texts[i]] for i in chosen))


def row_of(group: Group, settings: CollectSettings) -> dict[str, Any] | None:
    """The row of a group, or None where it gives none.

    Truncated and empty responses are left out: as training data they would teach the model to stop there. Of responses with the same text
    the first counts; of equal rewards, the response sampled first.
    """
    complete = [response for response in group.responses if _is_complete(response)]
    if settings.kind == "answers":
        texts = list(dict.fromkeys(response.text for response in complete))
        return {**_prompt_columns(group), "responses": texts} if len(texts) > 1 else None
    reward_of: dict[str, float] = {}  # by text, in the order of sampling
    for response in complete:
        if response.total is not None:
            reward_of.setdefault(response.text, response.total)
    if not reward_of:
        return None
    columns = _columns_of(reward_of, settings)
    return None if columns is None else {**_prompt_columns(group), **columns}


def _columns_of(reward_of: Mapping[str, float], settings: CollectSettings) -> dict[str, Any] | None:
    """The columns of kind best, pairs or rankings, from the reward of each distinct text."""
    best, worst = max(reward_of, key=reward_of.__getitem__), min(reward_of, key=reward_of.__getitem__)
    if settings.kind == "best":
        return {"completion": best, "reward": reward_of[best]} if settings.is_enough(reward_of[best]) else None
    if reward_of[best] == reward_of[worst]:
        return None
    if settings.kind == "rankings":
        ranks = {reward: rank for rank, reward in enumerate(sorted(set(reward_of.values()), reverse=True), start=1)}
        rewards = list(reward_of.values())
        return {"responses": list(reward_of), "ranking": [ranks[reward] for reward in rewards], "rewards": rewards}
    chosen, rejected = (best, worst) if settings.choose == "best_worst" else _around_threshold(reward_of, settings)
    if chosen is None or rejected is None:
        return None
    return {"chosen": chosen, "rejected": rejected, "rewards": [reward_of[chosen], reward_of[rejected]]}


def _around_threshold(reward_of: Mapping[str, float], settings: CollectSettings) -> tuple[str | None, str | None]:
    """The first text that reaches `least`, and the first that does not."""
    above = (text for text, reward in reward_of.items() if settings.is_enough(reward))
    below = (text for text, reward in reward_of.items() if not settings.is_enough(reward))
    return next(above, None), next(below, None)


def _prompt_columns(group: Group) -> dict[str, Any]:
    """The prompt as it was before the chat template, and the row's other columns."""
    asked = group.prompt.asked
    return {**group.prompt.columns, "prompt": list(asked) if isinstance(asked, tuple) else asked or group.prompt.text}


def _is_complete(response: Response) -> bool:
    return bool(response.text.strip()) and response.stop != "length"

"""Evaluation: the same held-out prompts, the same seed, before and after; pass@k and rewards with intervals over prompts."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from ikusei.guard.outcomes import too_many_failures
from ikusei.guard.workers import RewardWorkers
from ikusei.loops.measure import gold_of, thoughts
from ikusei.loops.order import in_order
from ikusei.loops.steps import RewardsFailed, StopAsked
from ikusei.protocols import Sampler
from ikusei.run.statistics import Interval, best_of, mean_interval, pass_table
from ikusei.types import Group, Prompt, Response, Sampling


@dataclass(frozen=True)
class EvalSettings:
    """`num_prompts` held-out prompts (0: no evaluation) with `num_samples` answers each. An answer passes when its reward is at least
    `pass_at`; the rewards that are marked gold judge, where there are any, else the total that is trained on. `shots` measures again with
    so many examples in the prompt (see few_shot.py), and `form` asks in raw text, {prompt} being the question, instead of by the chat
    template."""

    num_prompts: int = 64
    num_samples: int = 16
    pass_at: float = 1.0
    shots: tuple[int, ...] = ()
    form: str | None = None

    def __post_init__(self) -> None:
        if self.num_prompts < 0 or self.num_samples < 1 or any(shots < 1 for shots in self.shots):
            raise ValueError(
                f"got num_prompts={self.num_prompts}, num_samples={self.num_samples}, shots={list(self.shots)}; "
                "allowed: 0 or more, 1 or more, each 1 or more (without examples it is measured anyway)"
            )
        if self.form is not None and "{prompt}" not in self.form:
            raise ValueError(f"got form={self.form!r}; it must say where the question stands, for example 'Q: {{prompt}}\nA:'")

    def passes(self, value: float) -> bool:
        """Rewards are sums: 0.7 + 0.2 + 0.1 must pass at 1."""
        return value >= self.pass_at - 1e-9


@dataclass(frozen=True)
class Evaluation:
    """`results` is what results.json says, `rows` one row a sample."""

    results: dict[str, Any]
    rows: list[dict[str, Any]]


def evaluate(
    sampler: Sampler,
    prompts: Sequence[Prompt],
    workers: RewardWorkers,
    settings: EvalSettings,
    sampling: Sampling,
    seed: int,
    stop: StopAsked | None = None,
) -> Evaluation:
    """Sample, score and count. Answers whose reward failed are left out of the means and counted; RewardsFailed where most are.
    KeyboardInterrupt between two prompts once `stop` is asked."""
    began = time.perf_counter()
    pending = []
    for group in sampler.sample(prompts, settings.num_samples, sampling, seed):
        pending.append(workers.submit(group))
        if stop:
            raise KeyboardInterrupt
    groups = in_order(prompts, [each.result() for each in pending])
    problem = too_many_failures(groups)
    if problem:
        raise RewardsFailed(problem)
    gold = [spec.name for spec in workers.specs if spec.gold]
    judged = [[judgement(response, gold) for response in group.responses] for group in groups]
    numbers = [row for row in ([value for value in row if value is not None] for row in judged) if row]
    if not numbers:
        raise RewardsFailed("no reward applies to any answer; run `ikusei check` on the recipe to see what its rewards say")
    fewest = min(len(row) for row in numbers)
    ks = [1 << i for i in range(fewest.bit_length())]
    responses = [response for group in groups for response in group.responses]
    results: dict[str, Any] = {"num_prompts": len(groups), "num_samples": settings.num_samples}
    results |= pass_table([[settings.passes(value) for value in row] for row in numbers], ks)
    results["reward"] = mean_interval([fmean(row) for row in numbers])
    results |= {f"rewards/{spec.name}": part for spec in workers.specs if (part := of_reward(spec.name, groups))}
    if any(value not in (0, 1) for row in numbers for value in row):  # else best of k is pass@k
        results |= {f"best_of_{k}": mean_interval([best_of(row, k) for row in numbers]) for k in ks[1:]}
    results |= {
        "mean_length": fmean(len(r.tokens) for r in responses),
        "truncated": fmean(r.stop == "length" for r in responses),
        "failed": fmean(value is None for row in judged for value in row),
        "tokens": sum(len(r.tokens) for r in responses),
        "seconds": time.perf_counter() - began,
    }
    described = thoughts(responses)
    results |= {"empty_thoughts": described["thoughts/empty"]} if described else {}
    return Evaluation(results, [row for group, values in zip(groups, judged, strict=True) for row in rows_of(group, values, settings)])


def of_reward(name: str, groups: Sequence[Group]) -> Interval | None:
    """One reward's mean over prompts; None where it has said nothing."""
    parts = [[response.score.parts[name].value for response in group.responses if response.score] for group in groups]
    means = [fmean(known) for row in parts if (known := [value for value in row if value is not None])]
    return mean_interval(means) if means else None


def judgement(response: Response, gold: Sequence[str]) -> float | None:
    """What decides whether an answer passes: the mean of its gold rewards, else its total."""
    if response.score is None:
        return None
    if not gold:
        return response.score.total
    return gold_of(response, gold)


def rows_of(group: Group, values: Sequence[float | None], settings: EvalSettings) -> list[dict[str, Any]]:
    """One row a sample for samples.parquet, with what another judge needs to judge it again."""
    answer = group.prompt.columns.get("answer")
    columns = json.dumps(dict(group.prompt.columns), ensure_ascii=False, default=str)
    asked = json.dumps(group.prompt.asked, ensure_ascii=False)
    return [
        {
            "prompt_id": group.prompt.id,
            "prompt": group.prompt.text,
            "answer": None if answer is None else str(answer),
            "response": response.text,
            "total": value,
            "correct": value is not None and settings.passes(value),
            "num_tokens": len(response.tokens),
            "columns": columns,
            "asked": asked,
            "stop": response.stop,
        }
        for response, value in zip(group.responses, values, strict=True)
    ]

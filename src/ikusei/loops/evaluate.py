"""Evaluation: the same held-out prompts, the same seed, before and after; every figure with its interval over prompts.

    pass@k    at least one of k answers is right
    maj@k     the commonest of k answers is right (self-consistency, arXiv:2203.11171)
    bon@k     the one of k that earns most by the rewards trained on is right by the gold (best of k), where there is a gold
    greedy    the likeliest answer, token by token, is right

Each is unbiased: over subsets of k of the n answers that were drawn, all of them or a fixed number of random ones.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from statistics import fmean
from typing import Any

from ikusei.guard.outcomes import too_many_failures
from ikusei.guard.workers import RewardWorkers
from ikusei.intervals import Interval, best_of, mean_interval, pass_table, tries
from ikusei.loops.metrics import gold_of, thoughts
from ikusei.loops.order import in_order
from ikusei.loops.steps import RewardsFailed, StopAsked
from ikusei.protocols import Sampler
from ikusei.search.choosing import answered, best_right_at, right_at
from ikusei.search.vote import Vote
from ikusei.types import Group, Prompt, Response, Sampling


@dataclass(frozen=True)
class EvalSettings:
    """`num_prompts` held-out prompts (0: no evaluation) with `num_samples` answers each. An answer passes when its reward is at least
    `pass_at`; the rewards that are marked gold judge, where there are any, else the total that is trained on. `shots` measures again with
    so many examples in the prompt (see few_shot.py), and `form` asks in raw text, {prompt} being the question, instead of by the chat
    template. `greedy` has each prompt answered once more, by the likeliest tokens."""

    num_prompts: int = 64
    num_samples: int = 16
    pass_at: float = 1.0
    shots: tuple[int, ...] = ()
    form: str | None = None
    greedy: bool = True

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
    groups = scored(sampler.sample(prompts, settings.num_samples, sampling, seed), prompts, workers, stop)
    likeliest = replace(sampling, top_k=1, top_p=1.0, min_p=0.0)
    surest = scored(sampler.sample(prompts, 1, likeliest, seed), prompts, workers, stop) if settings.greedy else []
    problem = too_many_failures(groups) or too_many_failures(surest)
    if problem:
        raise RewardsFailed(problem)
    gold = [spec.name for spec in workers.specs if spec.gold]
    judged, greedy = ([[judgement(r, gold) for r in group.responses] for group in each] for each in (groups, surest))
    numbers = [row for row in ([value for value in row if value is not None] for row in judged) if row]
    if not numbers:
        raise RewardsFailed("no reward applies to any answer; run `ikusei check` on the recipe to see what its rewards say")
    ks = tries(min(len(row) for row in numbers))
    responses = [response for group in groups for response in group.responses]
    results: dict[str, Any] = {"num_prompts": len(groups), "num_samples": settings.num_samples}
    results |= pass_table([[settings.passes(value) for value in row] for row in numbers], ks)
    results |= chosen_table(groups, judged, ks[1:], settings, gold)
    right = [float(settings.passes(value)) for row in greedy for value in row if value is not None]
    results |= {"greedy": mean_interval(right)} if right else {}
    results["reward"] = mean_interval([fmean(row) for row in numbers])
    results |= {f"rewards/{spec.name}": part for spec in workers.specs if (part := of_reward(spec.name, groups))}
    if any(value not in (0, 1) for row in numbers for value in row):  # else best of k is pass@k
        results |= {f"best_of_{k}": mean_interval([best_of(row, k) for row in numbers]) for k in ks[1:]}
    results |= {
        "mean_length": fmean(len(r.tokens) for r in responses),
        "truncated": fmean(r.stop == "length" for r in responses),
        "failed": fmean(value is None for row in judged for value in row),
        "tokens": sum(len(r.tokens) for group in (*groups, *surest) for r in group.responses),
        "seconds": time.perf_counter() - began,
    }
    described = thoughts(responses)
    results |= {"empty_thoughts": described["thoughts/empty"]} if described else {}
    asked = ((False, groups, judged), (True, surest, greedy))
    rows = [row for how, made, told in asked for g, values in zip(made, told, strict=True) for row in rows_of(g, values, settings, how)]
    return Evaluation(results, rows)


def scored(written: Iterator[Group], prompts: Sequence[Prompt], workers: RewardWorkers, stop: StopAsked | None) -> list[Group]:
    """What is written, with its rewards, in the order of the prompts; scored while the rest is still being written."""
    pending = []
    for group in written:
        pending.append(workers.submit(group))
        if stop:
            raise KeyboardInterrupt
    return in_order(prompts, [each.result() for each in pending])


def chosen_table(
    groups: Sequence[Group], judged: Sequence[Sequence[float | None]], ks: Sequence[int], settings: EvalSettings, gold: Sequence[str]
) -> dict[str, Interval]:
    """maj@k and, where the gold is another than what is trained on, bon@k. Answers that were not judged are left out."""
    vote, rows = Vote(canonical=cache(answered)), []
    for group, values in zip(groups, judged, strict=True):
        known = [(response, settings.passes(value)) for response, value in zip(group.responses, values, strict=True) if value is not None]
        if known:
            rows.append(([response for response, _ in known], [right for _, right in known]))
    found = {f"maj@{k}": mean_interval([right_at(vote, responses, right, k) for responses, right in rows]) for k in ks}
    paid = [[(r.total, right) for r, right in zip(*row, strict=True) if r.total is not None] for row in rows] if gold else []
    fewest = min(map(len, paid), default=0)  # an answer without a total is never chosen, as if it had not been drawn
    for k in [k for k in ks if k <= fewest]:
        found[f"bon@{k}"] = mean_interval([best_right_at([total for total, _ in each], [right for _, right in each], k) for each in paid])
    return found


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


def rows_of(group: Group, values: Sequence[float | None], settings: EvalSettings, greedy: bool = False) -> list[dict[str, Any]]:
    """One row an answer for samples.parquet, with what another judge needs to judge it again."""
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
            "greedy": greedy,
            "columns": columns,
            "asked": asked,
            "stop": response.stop,
        }
        for response, value in zip(group.responses, values, strict=True)
    ]

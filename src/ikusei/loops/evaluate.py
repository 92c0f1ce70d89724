"""Evaluation on held-out prompts, with the same prompts and seed before and after training. The figures: eval_metrics/answers.py."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ikusei.eval_metrics import answers
from ikusei.eval_metrics.answers import Answers
from ikusei.eval_metrics.metric import measure
from ikusei.guard.outcomes import too_many_failures
from ikusei.guard.workers import RewardWorkers
from ikusei.loops.metrics import gold_of
from ikusei.loops.order import in_order
from ikusei.loops.steps import RewardsFailed, StopRequest
from ikusei.protocols import Sampler
from ikusei.types import Group, Prompt, Response, Sampling


@dataclass(frozen=True)
class EvalSettings:
    """`num_prompts` held-out prompts (0: no evaluation) with `num_samples` samples each. A response passes when its reward is at least
    `pass_at`: the mean of its gold rewards, or the training reward where none is marked gold. `shots` evaluates again with so many
    worked examples in the prompt (few_shot.py). `form` is a raw-text prompt with {prompt} for the question, used instead of the chat
    template. `greedy` also decodes each prompt once greedily."""

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
class EvalResult:
    """`results` is the content of results.json, `rows` one row for each response."""

    results: dict[str, Any]
    rows: list[dict[str, Any]]


def evaluate(
    sampler: Sampler,
    prompts: Sequence[Prompt],
    workers: RewardWorkers,
    settings: EvalSettings,
    sampling: Sampling,
    seed: int,
    stop: StopRequest | None = None,
    seen: Sequence[str] = (),
) -> EvalResult:
    """Sample, score, and compute each figure. `seen` are gold answers of training rows, for the chance baselines. Responses whose reward
    failed are counted, and left out of the means.

    Raises:
        RewardsFailed: most rewards failed, or none applies to any answer.
        KeyboardInterrupt: between two prompts, once `stop` is requested.
    """
    began = time.perf_counter()
    sampled = scored(sampler.sample(prompts, settings.num_samples, sampling, seed), prompts, workers, stop)
    argmax = replace(sampling, top_k=1, top_p=1.0, min_p=0.0)
    greedy = scored(sampler.sample(prompts, 1, argmax, seed), prompts, workers, stop) if settings.greedy else []
    evidence = gathered(sampled, greedy, workers, settings, seen)
    results = {"num_prompts": len(sampled), "num_samples": settings.num_samples, **measure(answers.FIGURES, evidence)}
    results["tokens"] = sum(len(response.tokens) for group in (*sampled, *greedy) for response in group.responses)
    results["seconds"] = time.perf_counter() - began
    rows = [row for group, values in zip(sampled, evidence.judged, strict=True) for row in rows_of(group, values, settings)]
    rows += [row for group, value in zip(greedy, evidence.greedy, strict=True) for row in rows_of(group, [value], settings, greedy=True)]
    return EvalResult(results, rows)


def scored(written: Iterator[Group], prompts: Sequence[Prompt], workers: RewardWorkers, stop: StopRequest | None) -> list[Group]:
    """The groups with rewards, in the order of the prompts. Scoring overlaps with sampling."""
    pending = []
    for group in written:
        pending.append(workers.submit(group))
        if stop:
            raise KeyboardInterrupt
    return in_order(prompts, [each.result() for each in pending])


def gathered(
    sampled: Sequence[Group], greedy: Sequence[Group], workers: RewardWorkers, settings: EvalSettings, seen: Sequence[str]
) -> Answers:
    """What the figures are computed from. Raises RewardsFailed where most rewards failed, or no reward applies to any response."""
    problem = too_many_failures(sampled) or too_many_failures(greedy)
    if problem:
        raise RewardsFailed(problem)
    gold = [spec.name for spec in workers.specs if spec.gold]
    evidence = Answers(
        groups=sampled,
        judged=[[judgement(response, gold) for response in group.responses] for group in sampled],
        greedy=[judgement(response, gold) for group in greedy for response in group.responses],
        passes=settings.passes,
        rewards=[spec.name for spec in workers.specs],
        gold=gold,
        seen=seen,
    )
    if not evidence.known:
        raise RewardsFailed("no reward applies to any answer; run `ikusei check` on the recipe to see what its rewards say")
    return evidence


def judgement(response: Response, gold: Sequence[str]) -> float | None:
    """The value that `pass_at` is compared with: the mean of the gold rewards, or the total where there are none."""
    if response.score is None:
        return None
    if not gold:
        return response.score.total
    return gold_of(response, gold)


def rows_of(group: Group, values: Sequence[float | None], settings: EvalSettings, greedy: bool = False) -> list[dict[str, Any]]:
    """The rows of samples.parquet, one for each response, with the columns that are needed to score it again."""
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

"""Measurements that claims share: answers to held-out prompts, their rewards, and their log-probs under another model.

Letters: P prompts, n answers to each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from ikusei.forest import plant
from ikusei.loops.data import Rows
from ikusei.loops.order import in_order
from ikusei.protocols import Task
from ikusei.run.find import find_model
from ikusei.samplers.load import load_sampler
from ikusei.types import Group, Prompt, Response, Sampling, Score

Judge = Callable[..., Any]  # a reward function: (prompt, response, **columns) -> float
TOKENS_PER_MICROBATCH = 8192


def tiny_llama(width: int, inner: int, layers: int, context: int, **config: Any) -> dict[str, Any]:
    """The section `model` of a recipe that begins from nothing: a Llama of four heads that reads characters."""
    sizes = {"hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers, "max_position_embeddings": context}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4, "tie_word_embeddings": True}
    return {"architecture": "llama", "tokenizer": "characters", "config": {**sizes, **heads, **config}}


def answers(model: str | Path, prompts: Sequence[Prompt], num: int, sampling: Sampling, seed: int = 0) -> list[Group]:
    """[P] groups of `num` answers, in the order of the prompts."""
    return in_order(prompts, list(load_sampler(find_model(str(model))).sample(prompts, num, sampling, seed)))


def held_out(model: str | Path, task: Task, count: int) -> list[Prompt]:
    """The task's first test prompts, as the model's chat template renders them."""
    return Rows(task, load_sampler(find_model(str(model))).tokenizer, seed=0).held_out(count)


def judged(groups: Sequence[Group], judge: Judge) -> list[Group]:
    """The same groups, with the judge's reward as each answer's total."""
    return [replace(group, responses=tuple(_scored(group.prompt, each, judge) for each in group.responses)) for group in groups]


def _scored(prompt: Prompt, response: Response, judge: Judge) -> Response:
    return replace(response, score=Score(float(judge(prompt, response.text, **prompt.columns))))


def mean_total(groups: Sequence[Group]) -> float:
    return fmean(total for group in groups for total in group.totals)


def logps(model: str | Path, groups: Sequence[Group]) -> list[list[float]]:
    """[P][n] log-probs of whole answers, in nats, under the model at temperature 1."""
    sampler = load_sampler(find_model(str(model)))
    rows = iter(
        [
            logp
            for microbatch in plant([replace(group, tiers=None) for group in groups]).split(TOKENS_PER_MICROBATCH)
            for logp in microbatch.sum_R(sampler.forward(microbatch).logp_M).tolist()
        ]
    )
    return [[next(rows) for _ in group.responses] for group in groups]


def kl(groups: Sequence[Group], reference: str | Path) -> float:
    """KL(model || reference) a response, in nats, from answers that the model wrote at temperature 1 with its whole distribution."""
    theirs = logps(reference, groups)
    gaps = [
        math.fsum(r.logprobs or ()) - logp for g, row in zip(groups, theirs, strict=True) for r, logp in zip(g.responses, row, strict=True)
    ]
    return fmean(gaps)

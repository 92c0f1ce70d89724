"""The losses once more, as anybody would write them: transformers' own forward, one response at a time, padded [R, T] tensors and masks.

Nothing here is shared with the library but its records. A new algorithm adds its function to LOSSES.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from ikusei.algos.grpo import GRPO
from ikusei.algos.lm import LanguageModelling
from ikusei.types import Group

Metrics = dict[str, float]


@dataclass(frozen=True)
class Rows:
    """One row a response, [R, T] each, padded on the right."""

    logp: Tensor
    entropy: Tensor
    old: Tensor
    ref: Tensor
    mask: Tensor  # 1.0 where scored
    weight: Tensor  # [R, 1]
    num_tokens: float  # scored in the whole step
    num_responses: float

    def mean(self, x: Tensor) -> float:
        """Over the scored tokens of these rows, each counted once."""
        return float((x.float() * self.mask).sum().detach() / self.mask.sum())


def plain_rows(model: PreTrainedModel, groups: Sequence[Group], temperature: float) -> list[tuple[Tensor, Tensor]]:
    """(log-prob of each token, entropy before it) for each response, by the whole model."""
    found = []
    for group in groups:
        for response in group.responses:
            ids = torch.tensor([[*group.prompt.tokens, *response.tokens]])
            logits = model(input_ids=ids, use_cache=False).logits[0, len(group.prompt.tokens) - 1 : -1] / temperature
            logp = torch.log_softmax(logits, -1)
            picked = logp[torch.arange(len(response.tokens)), torch.tensor(response.tokens)]
            found.append((picked, torch.distributions.Categorical(logits=logits).entropy()))
    return found


def padded_rows(model: PreTrainedModel, reference: PreTrainedModel, groups: Sequence[Group], temperature: float) -> Rows:
    logps, entropies = zip(*plain_rows(model, groups, temperature), strict=True)
    with torch.no_grad():
        refs = [logp for logp, _ in plain_rows(reference, groups, temperature)]
    responses = [response for group in groups for response in group.responses]
    pad = lambda rows: pad_sequence(list(rows), batch_first=True)  # noqa: E731
    mask = pad(torch.tensor(r.mask, dtype=torch.float32) for r in responses)
    return Rows(
        logp=pad(logps),
        entropy=pad(entropies),
        old=pad(torch.tensor(r.logprobs) for r in responses),
        ref=pad(refs),
        mask=mask,
        weight=torch.tensor([[group.weight] for group in groups for _ in group.responses]),
        num_tokens=float(mask.sum()),
        num_responses=float(len(responses)),
    )


def grpo(algorithm: GRPO, groups: Sequence[Group], rows: Rows) -> tuple[Tensor, Metrics]:
    scores = [torch.tensor([r.score.total for r in group.responses if r.score]) for group in groups]
    centred = [each - each.mean() for each in scores]
    if algorithm.divide_by_std:
        centred = [c / (each.std() + 1e-4) if len(each) > 1 else c for c, each in zip(centred, scores, strict=True)]
    advantage = torch.cat(centred)[:, None]
    ratio = torch.exp(rows.logp - rows.old)
    low, high = 1 - algorithm.clip_low, 1 + algorithm.clip_high
    free, held = ratio * advantage, torch.clip(ratio, low, high) * advantage
    token = -torch.where(free < held, free, held)
    too_low, too_high = (ratio < low) & (advantage < 0), (ratio > high) & (advantage > 0)
    metrics = {
        "entropy": rows.mean(rows.entropy), "ratio": rows.mean(ratio), "clip_ratio/low_mean": rows.mean(too_low),
        "clip_ratio/high_mean": rows.mean(too_high), "clip_ratio/region_mean": rows.mean(too_low | too_high),
    }  # fmt: skip
    if algorithm.kl_coef > 0:
        ahead = rows.logp - rows.ref
        half_square = 0.5 * ahead**2
        kl = {
            "k1": ahead.detach() + half_square - half_square.detach(),
            "k2": half_square,
            "k3": torch.exp(-ahead) - 1 + ahead,
        }[algorithm.kl_estimator]
        token = token + algorithm.kl_coef * kl
        metrics["kl"] = rows.mean(kl)
    token = token * rows.weight * rows.mask
    if algorithm.aggregate == "token":
        return token.sum() / rows.num_tokens, metrics
    return (token.sum(1) / rows.mask.sum(1).clip(min=1)).sum() / rows.num_responses, metrics


def language_modelling(algorithm: LanguageModelling, groups: Sequence[Group], rows: Rows) -> tuple[Tensor, Metrics]:
    return -(rows.logp * rows.mask * rows.weight).sum() / rows.num_tokens, {"entropy": rows.mean(rows.entropy)}


LOSSES: dict[type, Callable[[Any, Sequence[Group], Rows], tuple[Tensor, Metrics]]] = {GRPO: grpo, LanguageModelling: language_modelling}


def padded_step(
    model: PreTrainedModel, reference: PreTrainedModel, algorithm: Any, groups: Sequence[Group], temperature: float
) -> tuple[Metrics, dict[str, Tensor]]:
    """Metrics, the loss among them, and every gradient."""
    model.zero_grad()
    loss, metrics = LOSSES[type(algorithm)](algorithm, groups, padded_rows(model, reference, groups, temperature))
    loss.backward()
    grads = {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}
    return {"loss": float(loss.detach()), **metrics}, grads

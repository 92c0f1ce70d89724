"""REINFORCE++: advantages are whitened over the batch, without a critic; optionally with the group mean as baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ikusei.forest import Forest, Loss, Outputs
from ikusei.maths import clip_shares, clipped_objective, demand, gae, whiten
from ikusei.types import Group


@dataclass(frozen=True)
class Reinforce:
    """REINFORCE++, and with `baseline` REINFORCE++-baseline.   arXiv:2501.03262

        r_i      the total, less the group's mean with `baseline`
        A_t      = r_i - kl_coef sum_{s >= t} (log pi_old(s) - log ref(s)),  then whitened over all tokens of the step
        L        = -sum_t min(w_t A_t, clip(w_t, 1 - clip_low, 1 + clip_high) A_t) / total_tokens        w_t = pi(t) / pi_old(t)

    Without a baseline one response to each prompt is enough (num_responses: 1). Whitening gives every response an advantage, also in groups
    whose rewards are all equal, so no group is skipped. Left out: the discount, which is 1 in all of the paper's runs on language models.
    """

    baseline: bool = False
    kl_coef: float = 0.0
    clip_low: float = 0.2
    clip_high: float = 0.2

    def __post_init__(self) -> None:
        demand(self, min(self.clip_low, self.clip_high, self.kl_coef) >= 0, "clips and kl_coef 0 or more")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"old", "reference"} if self.kl_coef > 0 else {"old"})

    def keep(self, group: Group) -> bool:
        return len(group.responses) > self.baseline

    def credit(self, groups: Sequence[Group], forest: Forest, state: Mapping[str, Any]) -> dict[str, Tensor]:
        means = [sum(group.totals) / len(group.totals) if self.baseline else 0.0 for group in groups]
        total_R = torch.tensor([total - mean for group, mean in zip(groups, means, strict=True) for total in group.totals])
        advantage_M = total_R[forest.response_M]
        if self.kl_coef > 0:
            penalty_M = -self.kl_coef * (forest["old_logp_M"] - forest["ref_logp_M"])
            advantage_M = advantage_M + gae(penalty_M, torch.zeros_like(penalty_M), forest.response_M, 1.0, 1.0)  # the sum from t on
        return {"advantage_M": whiten(advantage_M)}

    def loss(self, out: Outputs, forest: Forest) -> Loss:
        advantage_M, ratio_M = forest["advantage_M"], (out.logp_M - forest["old_logp_M"]).exp()
        loss_M = -clipped_objective(ratio_M, advantage_M, self.clip_low, self.clip_high) * forest.weight_M
        described = {"entropy": out.entropy_M, "ratio": ratio_M, **clip_shares(ratio_M, advantage_M, self.clip_low, self.clip_high)}
        if self.kl_coef > 0:
            described["kl"] = forest["old_logp_M"] - forest["ref_logp_M"]
        metrics = {name: x_M.detach().float().sum() / forest.denominators.laid_tokens for name, x_M in described.items()}
        return Loss(loss_M.sum() / forest.denominators.tokens, metrics)


VALUES = {"reinforce_baseline": Reinforce(baseline=True)}

"""GRPO and its switches: Dr. GRPO and DAPO are named values of one class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ikusei.forest import Forest, Loss, Outputs
from ikusei.maths import KL, clipped_objective, group_advantage, kl_estimate
from ikusei.types import Group


@dataclass(frozen=True)
class GRPO:
    """Group Relative Policy Optimization: subtract the group mean, clip the ratio.   arXiv:2402.03300

        A_i = r_i - mean(r)              over std(r) + 1e-4 with divide_by_std (the paper); without, Dr. GRPO (arXiv:2503.20783)
        w_t = pi(t) / pi_old(t)
        l_t = -min(w_t A_i, clip(w_t, 1 - clip_low, 1 + clip_high) A_i) + kl_coef KL(pi || ref)_t
        L   = sum_t l_t / total_tokens                              aggregate "token" (DAPO, arXiv:2503.14476)
            = sum_i (sum_t l_t / |o_i|) / total_responses           aggregate "sequence" (the paper)

    clip_high > clip_low is DAPO's "clip higher". A group whose totals are all equal has no advantage: without a KL term it is not computed,
    and still counts in the denominators. Left out: a value function, and Dr. GRPO's constant denominator (it only rescales the rate).
    """

    clip_low: float = 0.2
    clip_high: float = 0.2
    divide_by_std: bool = False
    aggregate: Literal["token", "sequence"] = "token"
    kl_coef: float = 0.0
    kl_estimator: KL = "k3"

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"old", "reference"} if self.kl_coef > 0 else {"old"})

    def start(self) -> Mapping[str, Any]:
        return {}

    def keep(self, group: Group) -> bool:
        return len(group.responses) > 1 and (self.kl_coef > 0 or len(set(group.totals)) > 1)

    def credit(self, groups: Sequence[Group], forest: Forest, state: Mapping[str, Any]) -> dict[str, Tensor]:
        advantages = [a for group in groups for a in group_advantage(list(group.totals), self.divide_by_std)]
        return {"advantage_R": torch.tensor(advantages)}

    def loss(self, out: Outputs, forest: Forest) -> Loss:
        advantage_M = forest["advantage_R"][forest.response_M]
        ratio_M = (out.logp_M - forest["old_logp_M"]).exp()
        loss_M = -clipped_objective(ratio_M, advantage_M, self.clip_low, self.clip_high)
        low_M = (ratio_M < 1 - self.clip_low) & (advantage_M < 0)
        high_M = (ratio_M > 1 + self.clip_high) & (advantage_M > 0)
        described = {"entropy": out.entropy_M, "clip_ratio/low_mean": low_M, "clip_ratio/high_mean": high_M, "ratio": ratio_M}
        described["clip_ratio/region_mean"] = low_M | high_M
        if self.kl_coef > 0:
            kl_M = kl_estimate(out.logp_M, forest["ref_logp_M"], self.kl_estimator)
            loss_M = loss_M + self.kl_coef * kl_M
            described["kl"] = kl_M
        loss_M = loss_M * forest.weight_M
        if self.aggregate == "token":
            value = loss_M.sum() / forest.totals.tokens
        else:
            value = (forest.sum_R(loss_M) / forest.length_R.clamp(min=1)).sum() / forest.totals.responses
        return Loss(value, {name: x_M.detach().float().sum() / forest.totals.laid_tokens for name, x_M in described.items()})

    def advance(self, state: Mapping[str, Any], metrics: Mapping[str, float]) -> Mapping[str, Any]:
        return state

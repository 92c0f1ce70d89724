"""RLOO: the baseline of a response is the mean reward of the others; the response is one action."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ikusei.forest import Forest, Loss, Outputs
from ikusei.maths import clip_shares, clipped_objective, demand, leave_one_out
from ikusei.types import Group


@dataclass(frozen=True)
class RLOO:
    """REINFORCE Leave-One-Out.   arXiv:2402.14740

        R_i = r_i - kl_coef sum_t (log pi_old(t) - log ref(t))
        A_i = R_i - mean of the other R_j
        w_i = pi(o_i) / pi_old(o_i)                          the product over its tokens
        L   = -sum_i min(w_i A_i, clip(w_i, 1 - clip_low, 1 + clip_high) A_i) / total_responses

    The KL is part of the reward. The ratio is of the whole response and clipped as in TRL; on-policy it is 1, and the loss is the paper's
    REINFORCE. Long responses have larger gradients, which GRPO's mean over tokens removes. The paper has kl_coef 0.03.
    """

    kl_coef: float = 0.0
    clip_low: float = 0.2
    clip_high: float = 0.2

    def __post_init__(self) -> None:
        demand(self, min(self.clip_low, self.clip_high, self.kl_coef) >= 0, "clips and kl_coef 0 or more")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"old", "reference"} if self.kl_coef > 0 else {"old"})

    def keep(self, group: Group) -> bool:
        return len(group.responses) > 1 and (self.kl_coef > 0 or len(set(group.totals)) > 1)

    def credit(self, groups: Sequence[Group], forest: Forest, state: Mapping[str, Any]) -> dict[str, Tensor]:
        totals = [group.totals for group in groups]
        if self.kl_coef > 0:
            kl = iter(forest.sum_R(forest["old_logp_M"] - forest["ref_logp_M"]).tolist())
            totals = [[total - self.kl_coef * next(kl) for total in each] for each in totals]
        return {"advantage_R": torch.tensor([a for each in totals for a in leave_one_out(each)])}

    def loss(self, out: Outputs, forest: Forest) -> Loss:
        ratio_R, advantage_R = forest.sum_R(out.logp_M - forest["old_logp_M"]).exp(), forest["advantage_R"]
        loss_R = -clipped_objective(ratio_R, advantage_R, self.clip_low, self.clip_high) * forest.weight_R
        described = {"ratio": ratio_R, **clip_shares(ratio_R, advantage_R, self.clip_low, self.clip_high)}
        described_M = {"entropy": out.entropy_M} | {name: x_R[forest.response_M] for name, x_R in described.items()}
        if self.kl_coef > 0:
            described_M["kl"] = forest["old_logp_M"] - forest["ref_logp_M"]
        metrics = {name: x_M.detach().float().sum() / forest.denominators.laid_tokens for name, x_M in described_M.items()}
        return Loss(loss_R.sum() / forest.denominators.responses, metrics)

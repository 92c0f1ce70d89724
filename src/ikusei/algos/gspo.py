"""GSPO: GRPO with one importance ratio for each response."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ikusei.forest import Forest, Loss, Outputs
from ikusei.maths import Scale, clip_shares, clipped_objective, demand, group_advantages
from ikusei.types import Group


@dataclass(frozen=True)
class GSPO:
    """Group Sequence Policy Optimization: the reward is for the whole response, so one ratio per response is clipped.
    arXiv:2507.18071

        s_i = exp(mean_t log(pi(t) / pi_old(t)))
        L   = -sum_i min(s_i A_i, clip(s_i, 1 - clip_low, 1 + clip_high) A_i) / total_responses            A as in GRPO

    The mean over tokens keeps the ratio close to 1, so the clip range is hundreds of times narrower than GRPO's. On-policy the gradient
    equals that of GRPO with aggregate "sequence"; they differ off-policy, where `updates_per_step` is above 1 or samples are stale.
    Left out: GSPO-token, and a KL term.
    """

    needs = frozenset({"old"})

    clip_low: float = 3e-4
    clip_high: float = 4e-4
    scale_rewards: Scale = "group"

    def __post_init__(self) -> None:
        demand(self, min(self.clip_low, self.clip_high) >= 0, "clip_low and clip_high 0 or more")

    def keep(self, group: Group) -> bool:
        return len(group.responses) > 1 and (self.scale_rewards == "batch" or len(set(group.totals)) > 1)

    def credit(self, groups: Sequence[Group], forest: Forest, state: Mapping[str, Any]) -> dict[str, Tensor]:
        return {"advantage_R": torch.tensor(group_advantages([group.totals for group in groups], self.scale_rewards))}

    def loss(self, out: Outputs, forest: Forest) -> Loss:
        ahead_R = forest.sum_R(out.logp_M - forest["old_logp_M"]) / forest.length_R.clamp(min=1)
        ratio_R, advantage_R = ahead_R.exp(), forest["advantage_R"]
        loss_R = -clipped_objective(ratio_R, advantage_R, self.clip_low, self.clip_high) * forest.weight_R
        described = {"ratio": ratio_R, **clip_shares(ratio_R, advantage_R, self.clip_low, self.clip_high)}
        described_M = {"entropy": out.entropy_M} | {name: x_R[forest.response_M] for name, x_R in described.items()}
        metrics = {name: x_M.detach().float().sum() / forest.denominators.laid_tokens for name, x_M in described_M.items()}
        return Loss(loss_R.sum() / forest.denominators.responses, metrics)

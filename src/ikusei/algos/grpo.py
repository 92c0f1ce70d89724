"""GRPO and its options; Dr. GRPO, DAPO and LitePPO are presets of one class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ikusei.forest import Forest, Loss, Outputs
from ikusei.maths import KL, Scale, clip_shares, clipped_objective, demand, group_advantages, kl_estimate
from ikusei.types import Group


@dataclass(frozen=True)
class GRPO:
    """Group Relative Policy Optimization: subtract the group mean, clip the ratio.   arXiv:2402.03300

        A_i = (r_i - mean(r)) / s       s = 1, or std(r) + 1e-4 of the group (the paper) or of the batch (LitePPO, arXiv:2508.08221)
        w_t = pi(t) / pi_old(t)
        l_t = -min(w_t A_i, clip(w_t, 1 - clip_low, 1 + clip_high) A_i) + kl_coef KL(pi || ref)_t - entropy_coef entropy_t
        L   = sum_t l_t / total_tokens                              aggregate "token" (DAPO, arXiv:2503.14476)
            = sum_i (sum_t l_t / |o_i|) / total_responses           aggregate "sequence" (the paper)

    scale_rewards "none" (s = 1) is Dr. GRPO (arXiv:2503.20783), clip_high > clip_low is DAPO's "clip higher". With `target_entropy` (nats
    per token) a step whose entropy is below the target raises the entropy coefficient by `entropy_step` and applies it in the next step;
    any other lowers it and turns it off (arXiv:2505.22312). A group with equal rewards has zero advantages: it is skipped unless the KL
    term, the entropy term or the batch's std needs it, and still counts in the denominators. Left out: a value function, and Dr. GRPO's
    constant denominator (it only rescales the learning rate).
    """

    clip_low: float = 0.2
    clip_high: float = 0.2
    scale_rewards: Scale = "none"
    aggregate: Literal["token", "sequence"] = "token"
    kl_coef: float = 0.0
    kl_estimator: KL = "k3"
    entropy_coef: float = 0.0
    target_entropy: float | None = None
    entropy_step: float = 0.001

    def __post_init__(self) -> None:
        whole = min(self.clip_low, self.clip_high, self.kl_coef, self.entropy_step) >= 0
        target = self.target_entropy is None or self.target_entropy > 0
        demand(self, whole and target, "clip_low, clip_high, kl_coef and entropy_step 0 or more, target_entropy above 0")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"old", "reference"} if self.kl_coef > 0 else {"old"})

    def start(self) -> Mapping[str, Any]:
        return {} if self.target_entropy is None else {"entropy_coef": self.entropy_coef, "below": False}

    def keep(self, group: Group) -> bool:
        more = self.kl_coef > 0 or self.entropy_coef != 0 or self.target_entropy is not None or self.scale_rewards == "batch"
        return len(group.responses) > 1 and (more or len(set(group.totals)) > 1)

    def credit(self, groups: Sequence[Group], forest: Forest, state: Mapping[str, Any]) -> dict[str, Tensor]:
        credit = {"advantage_R": torch.tensor(group_advantages([group.totals for group in groups], self.scale_rewards))}
        coef = self.entropy_coef if self.target_entropy is None else state["entropy_coef"] * state["below"]
        return credit | ({} if coef == 0 else {"entropy_coef_R": torch.full((forest.num_responses,), coef)})

    def loss(self, out: Outputs, forest: Forest) -> Loss:
        advantage_M = forest["advantage_R"][forest.response_M]
        ratio_M = (out.logp_M - forest["old_logp_M"]).exp()
        loss_M = -clipped_objective(ratio_M, advantage_M, self.clip_low, self.clip_high)
        described = {"entropy": out.entropy_M, "ratio": ratio_M, **clip_shares(ratio_M, advantage_M, self.clip_low, self.clip_high)}
        if self.kl_coef > 0:
            kl_M = kl_estimate(out.logp_M, forest["ref_logp_M"], self.kl_estimator)
            loss_M = loss_M + self.kl_coef * kl_M
            described["kl"] = kl_M
        if "entropy_coef_R" in forest.streams:
            coef_M = forest["entropy_coef_R"][forest.response_M]
            loss_M = loss_M - coef_M * out.entropy_M
            described["entropy_coef"] = coef_M
        loss_M = loss_M * forest.weight_M
        if self.aggregate == "token":
            value = loss_M.sum() / forest.denominators.tokens
        else:
            value = (forest.sum_R(loss_M) / forest.length_R.clamp(min=1)).sum() / forest.denominators.responses
        return Loss(value, {name: x_M.detach().float().sum() / forest.denominators.laid_tokens for name, x_M in described.items()})

    def advance(self, state: Mapping[str, Any], metrics: Mapping[str, float]) -> Mapping[str, Any]:
        if self.target_entropy is None or "entropy" not in metrics:
            return state
        below = metrics["entropy"] < self.target_entropy
        return {"entropy_coef": max(0.0, state["entropy_coef"] + (self.entropy_step if below else -self.entropy_step)), "below": below}


VALUES = {
    "dr_grpo": GRPO(scale_rewards="none", aggregate="token"),
    "dapo": GRPO(scale_rewards="group", aggregate="token", clip_high=0.28),
    "lite_ppo": GRPO(scale_rewards="batch", aggregate="token"),
}

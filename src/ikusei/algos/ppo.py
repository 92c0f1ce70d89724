"""PPO with a critic, for language models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ikusei.forest import Forest, Loss, Outputs
from ikusei.maths import clip_shares, clipped_objective, gae, kl_estimate, whiten
from ikusei.types import Group, Response


@dataclass(frozen=True)
class PPO:
    """Proximal Policy Optimization, with a critic as baseline of each token.   arXiv:1707.06347; on text arXiv:1909.08593, 2203.02155

        r_t = -kl_coef (log pi_old(t) - log ref(t)),  + the score at the response's last token
        A_t = GAE of r and V over the response's tokens;   R_t = A_t + V_t;   then A is whitened over all tokens of the step
        L   = mean_t [-min(w_t A_t, clip(w_t) A_t)] + vf_coef mean_t [max((V_t - R_t)^2, (clip(V_t, V_old +- clip_value) - R_t)^2) / 2]

    A truncated response scores `missing_eos_score` instead of its total (None: its total). With `target_kl` (nats a response) the
    coefficient adapts: kl_coef (1 + e episodes / horizon), e = KL / target_kl - 1 held within 0.2. `whiten_rewards` scales r to spread 1
    and keeps its mean. Defaults are those of arXiv:2403.17031. Left out: an entropy bonus. PPO-ptx is the loop's `replay`.
    """

    needs = frozenset({"old", "reference", "value"})

    clip: float = 0.2
    clip_value: float = 0.2
    vf_coef: float = 0.1
    gamma: float = 1.0
    gae_lambda: float = 0.95
    kl_coef: float = 0.05
    target_kl: float | None = None
    horizon: float = 10_000  # in episodes
    missing_eos_score: float | None = -1.0
    whiten_rewards: bool = False

    def __post_init__(self) -> None:
        if self.horizon <= 0 or (self.target_kl is not None and min(self.target_kl, self.kl_coef) <= 0):  # 0 times anything stays 0
            got = f"got target_kl={self.target_kl}, kl_coef={self.kl_coef}, horizon={self.horizon}"
            raise ValueError(f"{got}; allowed: each above 0 where the coefficient adapts; target_kl null holds kl_coef fixed")

    def start(self) -> Mapping[str, Any]:
        return {"kl_coef": self.kl_coef}

    def keep(self, group: Group) -> bool:
        return bool(group.responses)

    def credit(self, groups: Sequence[Group], forest: Forest, state: Mapping[str, Any]) -> dict[str, Tensor]:
        score_R = torch.tensor([self._score(response) for group in groups for response in group.responses])
        value_M = forest["old_value_M"]
        penalty_M = -state["kl_coef"] * (forest["old_logp_M"] - forest["ref_logp_M"])
        is_last_M = forest.response_M != torch.cat([forest.response_M[1:], forest.response_M.new_tensor([-1])])
        reward_M = penalty_M + score_R[forest.response_M] * is_last_M
        if self.whiten_rewards:
            reward_M = whiten(reward_M, shift_mean=False)
        advantage_M = gae(reward_M, value_M, forest.response_M, self.gamma, self.gae_lambda)
        return {"advantage_M": whiten(advantage_M), "return_M": advantage_M + value_M, "penalty_M": penalty_M}

    def loss(self, out: Outputs, forest: Forest) -> Loss:
        assert out.value_M is not None, "the loop gives a critic where `needs` says so"
        advantage_M, return_M, old_value_M = forest["advantage_M"], forest["return_M"], forest["old_value_M"]
        ratio_M = (out.logp_M - forest["old_logp_M"]).exp()
        policy_M = -clipped_objective(ratio_M, advantage_M, self.clip, self.clip)
        held_M = out.value_M.clamp(old_value_M - self.clip_value, old_value_M + self.clip_value)
        free_M, held_M = (out.value_M - return_M).square(), (held_M - return_M).square()
        value_M = torch.maximum(free_M, held_M) / 2
        policy, value = ((x_M * forest.weight_M).sum() / forest.denominators.tokens for x_M in (policy_M, value_M))
        described = {"entropy": out.entropy_M, "ratio": ratio_M, "kl": kl_estimate(out.logp_M, forest["ref_logp_M"], "k3")}
        described |= clip_shares(ratio_M, advantage_M, self.clip, self.clip)
        described["clip_ratio/value"] = held_M > free_M
        metrics = {name: x_M.detach().float().sum() / forest.denominators.laid_tokens for name, x_M in described.items()}
        ahead_M = forest["old_logp_M"] - forest["ref_logp_M"]
        metrics |= {"loss/policy": policy.detach(), "loss/value": value.detach()}
        metrics["objective/kl"] = ahead_M.sum() / forest.denominators.responses
        metrics["objective/non_score_reward"] = forest["penalty_M"].sum() / forest.denominators.responses
        return Loss(policy + self.vf_coef * value, {**metrics, "episodes": ahead_M.new_tensor(float(forest.num_responses))})

    def advance(self, state: Mapping[str, Any], metrics: Mapping[str, float]) -> Mapping[str, Any]:
        if self.target_kl is None:
            return state
        error = min(max(metrics["objective/kl"] / self.target_kl - 1, -0.2), 0.2)
        return {"kl_coef": state["kl_coef"] * (1 + error * metrics["episodes"] / self.horizon)}

    def _score(self, response: Response) -> float:
        assert response.total is not None, "a response without a total: call without_failures() first"
        ended = response.stop in ("eos", "stop")
        return response.total if ended or self.missing_eos_score is None else self.missing_eos_score

"""Formulas shared by algorithms, each written once, as pure functions of tensors.

Letters that end names: M target tokens, R responses, P pairs (better, worse).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

KL = Literal["k1", "k2", "k3"]
Scale = Literal["none", "group", "batch"]  # over which set the standard deviation of rewards is taken
MOST_LOG_PROB = -1e-7  # limits the log-odds of a probability of 1 to 16 nats


def kl_estimate(logp: Tensor, ref_logp: Tensor, kind: KL) -> Tensor:
    """Per-token estimates of KL(pi || ref) in nats, for tokens sampled from pi.   http://joschu.net/blog/kl-approx.html

        k1 = logp - ref                     unbiased, may be negative
        k2 = (logp - ref)^2 / 2             biased, low variance; its gradient is that of the KL
        k3 = exp(ref - logp) - 1 - (ref - logp)      unbiased, never negative

    As a term of a loss k1 would have a gradient of zero on average, so its value is k1 and its gradient k2's.
    """
    ahead = logp - ref_logp
    if kind == "k3":
        return torch.expm1(-ahead) + ahead
    k2 = ahead.square() / 2
    return k2 if kind == "k2" else k2 + (ahead - k2).detach()


def clipped_objective(ratio: Tensor, advantage: Tensor, clip_low: float, clip_high: float) -> Tensor:
    """min(w A, clip(w, 1 - clip_low, 1 + clip_high) A), to be maximised.   PPO, arXiv:1707.06347"""
    return torch.minimum(ratio * advantage, ratio.clamp(1 - clip_low, 1 + clip_high) * advantage)


def clip_shares(ratio: Tensor, advantage: Tensor, clip_low: float, clip_high: float) -> dict[str, Tensor]:
    """Which tokens or responses `clipped_objective` clips, by the names of the metrics."""
    low, high = (ratio < 1 - clip_low) & (advantage < 0), (ratio > 1 + clip_high) & (advantage > 0)
    return {"clip_ratio/low_mean": low, "clip_ratio/high_mean": high, "clip_ratio/region_mean": low | high}


def group_advantages(totals: Sequence[Sequence[float]], scale: Scale) -> list[float]:
    """r - mean(r) of each group, one after the other, over the sample standard deviation + 1e-4 of the group or of the whole batch."""
    if scale != "batch":
        return [a for group in totals for a in centred(group, scale == "group")]
    spread = _std([total for group in totals for total in group]) + 1e-4
    return [a / spread for group in totals for a in centred(group)]


def centred(values: Sequence[float], scaled: bool = False) -> list[float]:
    """x - mean(x), over the sample standard deviation + 1e-4 if `scaled`; exactly zero where all are equal."""
    if len(set(values)) == 1:
        return [0.0] * len(values)
    mean, spread = sum(values) / len(values), _std(values) + 1e-4 if scaled else 1.0
    return [(value - mean) / spread for value in values]


def leave_one_out(values: Sequence[float]) -> list[float]:
    """Each value minus the mean of the others."""
    return [c * len(values) / (len(values) - 1) for c in centred(values)]


def _std(values: Sequence[float]) -> float:
    """Divided by n - 1; of one number 0."""
    mean = sum(values) / len(values)
    return (sum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)) ** 0.5


def preference_loss(margin: Tensor, flipped: float | Tensor = 0.0) -> Tensor:
    """-(1 - flipped) log sigmoid(margin) - flipped log sigmoid(-margin), for labels of which a share `flipped` is wrong."""
    return -(1 - flipped) * F.logsigmoid(margin) - flipped * F.logsigmoid(-margin)


def preference_metrics(reward_R: Tensor, logp_R: Tensor, better_P: Tensor, worse_P: Tensor, num_pairs: float) -> dict[str, Tensor]:
    """Metrics of preference losses, as means over all `num_pairs` of a step: implicit rewards, and log-probs of whole responses.
    `logps/chosen` usually falls while margin and accuracy rise (likelihood displacement, arXiv:2410.08847)."""
    chosen_P, rejected_P = reward_R.detach()[better_P], reward_R.detach()[worse_P]
    watched = {
        "rewards/chosen": chosen_P,
        "rewards/rejected": rejected_P,
        "rewards/margins": chosen_P - rejected_P,
        "rewards/accuracies": (chosen_P > rejected_P).float(),
        "logps/chosen": logp_R.detach()[better_P],
        "logps/rejected": logp_R.detach()[worse_P],
    }
    return {name: x_P.sum() / num_pairs for name, x_P in watched.items()}


def log_odds(logp: Tensor) -> Tensor:
    """log(p / (1 - p)) from log p; log(1 - p) is taken as log(-expm1(log p)), which is exact also where p is near 1."""
    logp = logp.clamp(max=MOST_LOG_PROB)
    return logp - torch.log(-torch.expm1(logp))


def gae(reward_M: Tensor, value_M: Tensor, response_M: Tensor, gamma: float, gae_lambda: float) -> Tensor:
    """[M] advantages by generalised advantage estimation, within each response.   arXiv:1506.02438

    delta_t = r_t + gamma V_{t+1} - V_t            V after the last target token is 0
    A_t     = delta_t + gamma lambda A_{t+1}
    """
    rewards, values, responses = reward_M.tolist(), value_M.tolist(), response_M.tolist()
    advantages = [0.0] * len(rewards)
    for t in reversed(range(len(rewards))):
        goes_on = t + 1 < len(rewards) and responses[t + 1] == responses[t]
        next_value, next_advantage = (values[t + 1], advantages[t + 1]) if goes_on else (0.0, 0.0)
        advantages[t] = rewards[t] + gamma * next_value - values[t] + gamma * gae_lambda * next_advantage
    return reward_M.new_tensor(advantages)


def whiten(x: Tensor, shift_mean: bool = True) -> Tensor:
    """(x - mean) / sqrt(var + 1e-8), var divided by n and not n - 1; the mean is added again unless `shift_mean`. One number becomes 0."""
    mean = x.mean()
    white = (x - mean) / ((x - mean).square().mean() + 1e-8).sqrt()
    return white if shift_mean else white + mean


def demand(algorithm: object, holds: bool, allowed: str) -> None:
    """Raises ValueError with the algorithm's numbers and what is allowed, unless that holds."""
    if not holds:
        raise ValueError(f"got {algorithm}; allowed: {allowed}")

"""The formulas that several algorithms use, each written once. Pure functions of tensors.

Letters that end names: M scored tokens, R responses, G groups.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

KL = Literal["k1", "k2", "k3"]


def kl_estimate(logp: Tensor, ref_logp: Tensor, kind: KL) -> Tensor:
    """A token's estimate of KL(pi || ref) in nats, for tokens written by pi.   http://joschu.net/blog/kl-approx.html

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
    """min(w A, clip(w, 1 - clip_low, 1 + clip_high) A), to be raised.   PPO, arXiv:1707.06347"""
    return torch.minimum(ratio * advantage, ratio.clamp(1 - clip_low, 1 + clip_high) * advantage)


def group_advantage(totals: list[float], divide_by_std: bool) -> list[float]:
    """r - mean(r), over the sample standard deviation + 1e-4 if asked; all zero where the totals are equal."""
    mean = sum(totals) / len(totals)
    centred = [total - mean for total in totals]
    if not divide_by_std or len(set(totals)) == 1:
        return centred if len(set(totals)) > 1 else [0.0] * len(totals)
    std = (sum(c * c for c in centred) / (len(totals) - 1)) ** 0.5
    return [c / (std + 1e-4) for c in centred]

"""CISPO: clips the importance weight, so that no token loses its gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ikusei.forest import Forest, Loss, Outputs
from ikusei.maths import Scale, demand, group_advantages
from ikusei.types import Group


@dataclass(frozen=True)
class CISPO:
    """Clipped Importance Sampling Policy Optimization (MiniMax-M1).   arXiv:2506.13585

        L = -sum_t clip(w_t, ratio_low, ratio_high) A_i log pi(t) / total_tokens          w_t = pi(t) / pi_old(t), without gradient

    GRPO's clip removes the gradient of clipped tokens, which are often rare ones on which a chain of thought turns; here the clip only
    limits a token's weight. The bounds are those of the ratio itself: 5 is ScaleRL's (arXiv:2510.13786), 0.8 and 1.2 are verl's.
    Left out: a KL term.
    """

    needs = frozenset({"old"})

    ratio_low: float = 0.0
    ratio_high: float = 5.0
    scale_rewards: Scale = "group"

    def __post_init__(self) -> None:
        demand(self, 0 <= self.ratio_low <= 1 <= self.ratio_high, "0 <= ratio_low <= 1 <= ratio_high")

    def keep(self, group: Group) -> bool:
        return len(group.responses) > 1 and (self.scale_rewards == "batch" or len(set(group.totals)) > 1)

    def credit(self, groups: Sequence[Group], forest: Forest, state: Mapping[str, Any]) -> dict[str, Tensor]:
        return {"advantage_R": torch.tensor(group_advantages([group.totals for group in groups], self.scale_rewards))}

    def loss(self, out: Outputs, forest: Forest) -> Loss:
        advantage_M = forest["advantage_R"][forest.response_M]
        ratio_M = (out.logp_M.detach() - forest["old_logp_M"]).exp()
        held_M = ratio_M.clamp(self.ratio_low, self.ratio_high)
        loss_M = -held_M * advantage_M * out.logp_M * forest.weight_M
        described = {"entropy": out.entropy_M, "ratio": ratio_M, "clip_ratio/region_mean": ratio_M != held_M}
        metrics = {name: x_M.detach().float().sum() / forest.denominators.laid_tokens for name, x_M in described.items()}
        return Loss(loss_M.sum() / forest.denominators.tokens, metrics)

"""Plackett-Luce: a reward model from whole rankings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ikusei.forest import Forest, Loss, Outputs
from ikusei.types import Group


@dataclass(frozen=True)
class PlackettLuce:
    """Reward model: each place of a ranking, from the top, is a softmax over the remaining responses.   Luce 1959, Plackett 1975

        L = -sum_i log (exp r_i / sum over j not ranked above i of exp r_j), mean over prompts; the last tier adds nothing

    Ties by Breslow's method: each response of a tier against its own tier and all below. So the tiers (0, 1, 1, 1) are the best of four
    (Ziegler et al., arXiv:1909.08593), and (0, 1) is Bradley-Terry. A longer ranking has more terms. Left out: margins, centring.
    """

    supervised: ClassVar[bool] = True
    needs = frozenset({"reward"})

    def keep(self, group: Group) -> bool:
        return bool(group.pairs)

    def credit(self, groups: Sequence[Group], forest: Forest, state: Mapping[str, Any]) -> dict[str, Tensor]:
        return {"tier_R": torch.tensor([tier for group in groups for tier in group.tiers or (0,) * len(group.responses)])}

    def loss(self, out: Outputs, forest: Forest) -> Loss:
        assert out.reward_R is not None, "the loop gives a reward model where `needs` says so"
        reward_R, tier_R = out.reward_R, forest["tier_R"]
        siblings = forest.group_R[:, None] == forest.group_R
        remaining = siblings & (tier_R >= tier_R[:, None])  # [i, j]: j is there when the place of i is drawn
        log_sum_R = reward_R.expand_as(remaining).masked_fill(~remaining, -torch.inf).logsumexp(1)
        not_last_R = (siblings & (tier_R > tier_R[:, None])).any(1)
        loss_R = (log_sum_R - reward_R) * not_last_R * forest.weight_G[forest.group_R]
        ahead_P = (reward_R[forest.better_P] - reward_R[forest.worse_P]).detach()
        metrics = {"accuracy": (ahead_P > 0).sum() / forest.denominators.pairs, "margin": ahead_P.sum() / forest.denominators.pairs}
        metrics["mean_reward"] = reward_R.detach().sum() / forest.denominators.responses
        return Loss(loss_R.sum() / forest.denominators.groups, metrics)

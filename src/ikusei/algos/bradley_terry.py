"""Bradley-Terry: a reward model from pairs and rankings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ikusei.forest import Forest, Loss, Outputs
from ikusei.maths import preference_loss
from ikusei.types import Group


@dataclass(frozen=True)
class BradleyTerry:
    """Reward model: P(i is better than j) = sigmoid(r_i - r_j).   InstructGPT, arXiv:2203.02155, equation 1

        l(i, j) = -log sigmoid(r_i - r_j - margin) + center_coef (r_i + r_j)^2
        L       = mean over prompts of the mean of l over all pairs of the prompt's ranking

    All pairs of a ranking are one row of the batch; as separate rows each response would be seen K - 1 times an epoch. `margin` is the
    group's, 0 where it has none (Llama 2, arXiv:2307.09288); a center_coef such as 0.01 keeps rewards near 0 (arXiv:2312.09244). Two
    responses of one tier are no pair; with ties "half" they are a pair with target probability 1/2 and no margin.
    """

    supervised: ClassVar[bool] = True
    needs = frozenset({"reward"})

    center_coef: float = 0.0
    ties: Literal["drop", "half"] = "drop"

    def keep(self, group: Group) -> bool:
        return self._num_pairs(group) > 0

    def credit(self, groups: Sequence[Group], forest: Forest, state: Mapping[str, Any]) -> dict[str, Tensor]:
        tiers = [tier for group in groups for tier in group.tiers or range(len(group.responses))]  # without a ranking there are no ties
        return {
            "tier_R": torch.tensor(tiers),
            "size_R": torch.tensor([len(group.responses) for group in groups for _ in group.responses]),
            "margin_G": torch.tensor([group.margin or 0.0 for group in groups]),
            "share_G": torch.tensor([1 / max(1, self._num_pairs(group)) for group in groups]),
        }

    def loss(self, out: Outputs, forest: Forest) -> Loss:
        assert out.reward_R is not None, "the loop gives a reward model where `needs` says so"
        reward_R, tied_first, tied_second = out.reward_R, *self._tied(forest)
        first, second = torch.cat([forest.better_P, tied_first]), torch.cat([forest.worse_P, tied_second])
        tied = torch.arange(first.numel(), device=first.device) >= forest.better_P.numel()
        group = forest.group_R[first]
        ahead = reward_R[first] - reward_R[second]
        loss = preference_loss(ahead - forest["margin_G"][group] * ~tied, 0.5 * tied)
        loss = loss + self.center_coef * (reward_R[first] + reward_R[second]).square()
        value = (loss * forest["share_G"][group] * forest.weight_G[group]).sum() / forest.denominators.groups
        ahead_P, num_pairs = ahead.detach()[~tied], max(forest.denominators.pairs, 1.0)
        metrics = {"accuracy": (ahead_P > 0).sum() / num_pairs, "margin": ahead_P.sum() / num_pairs}
        return Loss(value, {**metrics, "mean_reward": reward_R.detach().sum() / forest.denominators.responses})

    def _num_pairs(self, group: Group) -> int:
        every = len(group.responses) * (len(group.responses) - 1) // 2
        return every if self.ties == "half" and group.tiers is not None else len(group.pairs)

    def _tied(self, forest: Forest) -> tuple[Tensor, Tensor]:
        """Every two responses of one group and one tier, as indices on R; none where ties are dropped."""
        if self.ties == "drop":
            return forest.better_P[:0], forest.worse_P[:0]
        siblings = forest.group_R[:, None] == forest.group_R
        if (siblings.sum(1) != forest["size_R"]).any():  # only a group without pairs is ever split
            raise ValueError(
                "a group of ties is larger than one micro-batch of the step; allowed: groups that fit; raise train.tokens_per_microbatch"
            )
        tied = siblings & (forest["tier_R"][:, None] == forest["tier_R"])
        first, second = tied.triu(1).nonzero(as_tuple=True)
        return first, second

"""SimPO: a preference loss on mean log-probs per token, without a reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ikusei.algos.pairs import mean_over_pairs
from ikusei.forest import Forest, Loss, Outputs
from ikusei.maths import preference_loss
from ikusei.types import Group


@dataclass(frozen=True)
class SimPO:
    """Simple Preference Optimization: the implicit reward is the mean log-prob per token, as in decoding.   arXiv:2405.14734

        s(y) = beta log pi(y) / |y|
        L    = -log sigmoid(s(chosen) - s(rejected) - gamma), mean over pairs

    gamma is the target margin, in units of s: the paper tunes gamma / beta between 0.1 and 0.8 and starts at 0.5, as here. beta is 2 to
    2.5, for strong instruct models 10. Without a reference, only a small learning rate (3e-7 to 1e-6) keeps the policy close to its start.
    """

    supervised: ClassVar[bool] = True
    needs = frozenset[str]()

    beta: float = 2.0
    gamma: float = 1.0

    def keep(self, group: Group) -> bool:
        return bool(group.pairs)

    def loss(self, out: Outputs, forest: Forest) -> Loss:
        logp_R = forest.sum_R(out.logp_M)
        reward_R = self.beta * logp_R / forest.length_R.clamp(min=1)
        loss_P = preference_loss(reward_R[forest.better_P] - reward_R[forest.worse_P] - self.gamma)
        return mean_over_pairs(loss_P, reward_R, out, forest)

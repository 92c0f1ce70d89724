"""Robust DPO: an unbiased estimate of DPO's loss under flipped labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ikusei.algos.pairs import mean_over_pairs
from ikusei.forest import Forest, Loss, Outputs
from ikusei.maths import preference_loss
from ikusei.types import Group


@dataclass(frozen=True)
class RobustDPO:
    """rDPO: in a share e of the pairs, chosen and rejected are swapped.   arXiv:2403.00409

        l(m) = -log sigmoid(m),    m = beta (d(chosen) - d(rejected)),    d(y) = log pi(y) - log ref(y)
        L    = ((1 - e) l(m) - e l(-m)) / (1 - 2 e)        its expectation over the flips is l of the true label

    It may be negative and has no lower bound, because l(-m) is unbounded; cDPO (`DPO(label_smoothing=e)`) stops at a finite margin.
    """

    supervised: ClassVar[bool] = True
    needs = frozenset({"reference"})

    beta: float = 0.1
    flip_rate: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.flip_rate < 0.5:
            raise ValueError(f"flip_rate: got {self.flip_rate}; allowed: 0 to below 0.5; swap labels that are wrong more often")

    def keep(self, group: Group) -> bool:
        return bool(group.pairs)

    def loss(self, out: Outputs, forest: Forest) -> Loss:
        reward_R = self.beta * forest.sum_R(out.logp_M - forest["ref_logp_M"])
        margin_P = reward_R[forest.better_P] - reward_R[forest.worse_P]
        right_P, wrong_P = preference_loss(margin_P), preference_loss(-margin_P)
        loss_P = ((1 - self.flip_rate) * right_P - self.flip_rate * wrong_P) / (1 - 2 * self.flip_rate)
        return mean_over_pairs(loss_P, reward_R, out, forest)

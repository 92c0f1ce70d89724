"""Robust DPO: an estimate of DPO's loss that flipped labels do not bias."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from ikusei.forest import Forest, Loss, Outputs
from ikusei.maths import preference_loss, preference_metrics
from ikusei.types import Group


@dataclass(frozen=True)
class RobustDPO:
    """rDPO: of all pairs a share e has chosen and rejected the wrong way round.   arXiv:2403.00409

        l(m) = -log sigmoid(m),    m = beta (d(chosen) - d(rejected)),    d(y) = log pi(y) - log ref(y)
        L    = ((1 - e) l(m) - e l(-m)) / (1 - 2 e)        whose mean over the flips is l of the true label

    It may be negative and has no lower bound, because l(-m) grows without end; cDPO (`DPO(label_smoothing=e)`) stops at a finite margin.
    """

    supervised: ClassVar[bool] = True

    beta: float = 0.1
    flip_rate: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.flip_rate < 0.5:
            raise ValueError(f"flip_rate: got {self.flip_rate}; allowed: 0 to below 0.5; swap labels that are wrong more often")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"reference"})

    def start(self) -> Mapping[str, Any]:
        return {}

    def keep(self, group: Group) -> bool:
        return bool(group.pairs)

    def credit(self, groups: Sequence[Group], forest: Forest, state: Mapping[str, Any]) -> dict[str, Tensor]:
        return {}

    def loss(self, out: Outputs, forest: Forest) -> Loss:
        reward_R = self.beta * forest.sum_R(out.logp_M - forest["ref_logp_M"])
        margin_P = reward_R[forest.better_P] - reward_R[forest.worse_P]
        right_P, wrong_P = preference_loss(margin_P), preference_loss(-margin_P)
        loss_P = ((1 - self.flip_rate) * right_P - self.flip_rate * wrong_P) / (1 - 2 * self.flip_rate)
        value = (loss_P * forest.weight_P).sum() / forest.totals.pairs
        logp_R = forest.sum_R(out.logp_M)
        return Loss(value, preference_metrics(reward_R, logp_R, forest.better_P, forest.worse_P, forest.totals.pairs))

    def advance(self, state: Mapping[str, Any], metrics: Mapping[str, float]) -> Mapping[str, Any]:
        return state

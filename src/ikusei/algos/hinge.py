"""The hinge loss on DPO's margin (SLiC)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from ikusei.forest import Forest, Loss, Outputs
from ikusei.maths import preference_metrics
from ikusei.types import Group


@dataclass(frozen=True)
class Hinge:
    """Hinge loss: a pair whose margin reaches 1 teaches nothing more.   SLiC-HF, arXiv:2305.10425; in this form arXiv:2309.06657

        L = max(0, 1 - beta (d(chosen) - d(rejected))), mean over pairs        d(y) = log pi(y) - log ref(y)

    With the reference, as libraries have it. SLiC-HF itself compares log pi without one and adds a term of NLL: both left out.
    """

    supervised: ClassVar[bool] = True

    beta: float = 0.1

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
        loss_P = (1 - (reward_R[forest.better_P] - reward_R[forest.worse_P])).relu()
        value = (loss_P * forest.weight_P).sum() / forest.totals.pairs
        logp_R = forest.sum_R(out.logp_M)
        return Loss(value, preference_metrics(reward_R, logp_R, forest.better_P, forest.worse_P, forest.totals.pairs))

    def advance(self, state: Mapping[str, Any], metrics: Mapping[str, float]) -> Mapping[str, Any]:
        return state

"""The hinge loss on DPO's margin (SLiC)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ikusei.algos.pairs import mean_over_pairs
from ikusei.forest import Forest, Loss, Outputs
from ikusei.types import Group


@dataclass(frozen=True)
class Hinge:
    """Hinge loss: a pair with a margin of 1 or more has no gradient.   SLiC-HF, arXiv:2305.10425; in this form arXiv:2309.06657

        L = max(0, 1 - beta (d(chosen) - d(rejected))), mean over pairs        d(y) = log pi(y) - log ref(y)

    With a reference, as in most libraries. SLiC-HF itself compares log pi without one and adds an NLL term: both left out.
    """

    supervised: ClassVar[bool] = True
    needs = frozenset({"reference"})

    beta: float = 0.1

    def keep(self, group: Group) -> bool:
        return bool(group.pairs)

    def loss(self, out: Outputs, forest: Forest) -> Loss:
        reward_R = self.beta * forest.sum_R(out.logp_M - forest["ref_logp_M"])
        loss_P = (1 - (reward_R[forest.better_P] - reward_R[forest.worse_P])).relu()
        return mean_over_pairs(loss_P, reward_R, out, forest)

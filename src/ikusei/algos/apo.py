"""APO: a preference loss that fixes for each response, not only for the pair, whether its likelihood rises or falls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from ikusei.algos.pairs import mean_over_pairs
from ikusei.forest import Forest, Loss, Outputs
from ikusei.types import Group


@dataclass(frozen=True)
class APO:
    """Anchored Preference Optimization.   arXiv:2408.06266

        s(y) = beta (log pi(y) - log ref(y))
        zero    1 - sigmoid(s(chosen)) + sigmoid(s(rejected))                        raises chosen, lowers rejected
        down    sigmoid(s(chosen)) + 1 - sigmoid(s(chosen) - s(rejected))            lowers both, rejected more

    "zero" where the chosen responses are better than the policy's own samples, "down" where they are worse. Mean over pairs.
    """

    supervised: ClassVar[bool] = True
    needs = frozenset({"reference"})

    beta: float = 0.1
    kind: Literal["zero", "down"] = "zero"

    def keep(self, group: Group) -> bool:
        return bool(group.pairs)

    def loss(self, out: Outputs, forest: Forest) -> Loss:
        reward_R = self.beta * forest.sum_R(out.logp_M - forest["ref_logp_M"])
        chosen_P, rejected_P = reward_R[forest.better_P], reward_R[forest.worse_P]
        if self.kind == "zero":
            loss_P = (-chosen_P).sigmoid() + rejected_P.sigmoid()
        else:
            loss_P = chosen_P.sigmoid() + (rejected_P - chosen_P).sigmoid()
        return mean_over_pairs(loss_P, reward_R, out, forest)

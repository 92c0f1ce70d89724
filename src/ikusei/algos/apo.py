"""APO: says of each response, and not only of the pair, whether it is to become likelier."""

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
        zero    1 - sigmoid(s(chosen)) + sigmoid(s(rejected))                        the chosen rises, the rejected falls
        down    sigmoid(s(chosen)) + 1 - sigmoid(s(chosen) - s(rejected))            both fall, the rejected more

    "zero" where the chosen responses are better than what the policy writes itself, "down" where they are worse. Mean over pairs.
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

"""APO: says of each response, and not only of the pair, whether it is to become likelier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from ikusei.forest import Forest, Loss, Outputs
from ikusei.maths import preference_metrics
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

    beta: float = 0.1
    kind: Literal["zero", "down"] = "zero"

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
        chosen_P, rejected_P = reward_R[forest.better_P], reward_R[forest.worse_P]
        if self.kind == "zero":
            loss_P = (-chosen_P).sigmoid() + rejected_P.sigmoid()
        else:
            loss_P = chosen_P.sigmoid() + (rejected_P - chosen_P).sigmoid()
        value = (loss_P * forest.weight_P).sum() / forest.totals.pairs
        logp_R = forest.sum_R(out.logp_M)
        return Loss(value, preference_metrics(reward_R, logp_R, forest.better_P, forest.worse_P, forest.totals.pairs))

    def advance(self, state: Mapping[str, Any], metrics: Mapping[str, float]) -> Mapping[str, Any]:
        return state

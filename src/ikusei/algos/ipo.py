"""IPO: a margin to be reached, not to be raised for ever."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from ikusei.forest import Forest, Loss, Outputs
from ikusei.maths import preference_metrics
from ikusei.types import Group


@dataclass(frozen=True)
class IPO:
    """Identity Preference Optimization: with preferences that never err DPO's margin goes to infinity, IPO's stops.   arXiv:2310.12036

        d(y) = log pi(y) - log ref(y)
        L    = (d(chosen) - d(rejected) - 1 / (2 tau))^2, mean over pairs

    d is a sum over tokens, as in the paper and most code; `per_token` divides it by |y|, as TRL does on its authors' word. Then tau = 0.1
    asks for 5 nats a token, so take a much larger tau. The rewards among the metrics are tau d(y).
    """

    supervised: ClassVar[bool] = True

    tau: float = 0.1
    per_token: bool = False

    def __post_init__(self) -> None:
        if self.tau <= 0:
            raise ValueError(f"tau: got {self.tau}; allowed: above 0; the margin to be reached is 1 / (2 tau), so 0.1 asks for 5 nats")

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
        ahead_R = forest.sum_R(out.logp_M - forest["ref_logp_M"])
        if self.per_token:
            ahead_R = ahead_R / forest.length_R.clamp(min=1)
        loss_P = (ahead_R[forest.better_P] - ahead_R[forest.worse_P] - 1 / (2 * self.tau)).square()
        value = (loss_P * forest.weight_P).sum() / forest.totals.pairs
        logp_R = forest.sum_R(out.logp_M)
        return Loss(value, preference_metrics(self.tau * ahead_R, logp_R, forest.better_P, forest.worse_P, forest.totals.pairs))

    def advance(self, state: Mapping[str, Any], metrics: Mapping[str, float]) -> Mapping[str, Any]:
        return state

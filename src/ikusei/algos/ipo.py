"""IPO: regresses the margin to a finite target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ikusei.algos.pairs import mean_over_pairs
from ikusei.forest import Forest, Loss, Outputs
from ikusei.types import Group


@dataclass(frozen=True)
class IPO:
    """Identity Preference Optimization: on deterministic preferences DPO's margin diverges, IPO's does not.   arXiv:2310.12036

        d(y) = log pi(y) - log ref(y)
        L    = (d(chosen) - d(rejected) - 1 / (2 tau))^2, mean over pairs

    d is a sum over tokens, as in the paper and most code; `per_token` divides it by |y|, as TRL does after its authors' advice. The target
    of tau = 0.1 is then 5 nats per token, so take a much larger tau. The rewards among the metrics are tau d(y).
    """

    supervised: ClassVar[bool] = True
    needs = frozenset({"reference"})

    tau: float = 0.1
    per_token: bool = False

    def __post_init__(self) -> None:
        if self.tau <= 0:
            raise ValueError(f"tau: got {self.tau}; allowed: above 0; the margin to be reached is 1 / (2 tau), so 0.1 asks for 5 nats")

    def keep(self, group: Group) -> bool:
        return bool(group.pairs)

    def loss(self, out: Outputs, forest: Forest) -> Loss:
        ahead_R = forest.sum_R(out.logp_M - forest["ref_logp_M"])
        if self.per_token:
            ahead_R = ahead_R / forest.length_R.clamp(min=1)
        loss_P = (ahead_R[forest.better_P] - ahead_R[forest.worse_P] - 1 / (2 * self.tau)).square()
        return mean_over_pairs(loss_P, self.tau * ahead_R, out, forest)

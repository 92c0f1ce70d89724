"""Online DPO: the pairs are the policy's own samples, ranked by their rewards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ikusei.algos.dpo import DPO
from ikusei.forest import Forest, Loss, Outputs
from ikusei.types import Group


@dataclass(frozen=True)
class OnlineDPO:
    """Online DPO (OAIF): sample, rank by the total reward, take DPO's step.   arXiv:2402.04792

        L = DPO's, over all pairs of a prompt's samples whose totals differ, mean over pairs

    The paper samples two of each prompt and asks a model which is better. Here any reward ranks any number, and equal totals are no pair.
    Left out: online IPO and SLiC, and a score of its own for samples that did not end, which a reward can give.
    """

    beta: float = 0.1

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"reference", "tiers"})

    def start(self) -> Mapping[str, Any]:
        return {}

    def keep(self, group: Group) -> bool:
        return len(set(group.totals)) > 1

    def credit(self, groups: Sequence[Group], forest: Forest, state: Mapping[str, Any]) -> dict[str, Tensor]:
        return {}

    def loss(self, out: Outputs, forest: Forest) -> Loss:
        result = DPO(self.beta).loss(out, forest)
        return Loss(result.value, {**result.metrics, "entropy": out.entropy_M.detach().sum() / forest.totals.laid_tokens})

    def advance(self, state: Mapping[str, Any], metrics: Mapping[str, float]) -> Mapping[str, Any]:
        return state

"""ORPO: supervised fine-tuning and a preference in one loss, without a reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from ikusei.forest import Forest, Loss, Outputs
from ikusei.maths import log_odds, preference_loss, preference_metrics
from ikusei.types import Group


@dataclass(frozen=True)
class ORPO:
    """Odds Ratio Preference Optimization.   arXiv:2403.07691

        p(y) = exp(log pi(y) / |y|),    odds(y) = p(y) / (1 - p(y))
        L    = -log p(chosen) - coef log sigmoid(log odds(chosen) - log odds(rejected)), mean over pairs

    `coef` is the paper's lambda (TRL's beta). The first term is the NLL of the response alone, a mean over its tokens; TRL and the paper's
    own code count the prompt's tokens in as well and take one mean over the batch. The rewards among the metrics are coef log p(y).
    """

    supervised: ClassVar[bool] = True

    coef: float = 0.1

    @property
    def needs(self) -> frozenset[str]:
        return frozenset()

    def start(self) -> Mapping[str, Any]:
        return {}

    def keep(self, group: Group) -> bool:
        return bool(group.pairs)

    def credit(self, groups: Sequence[Group], forest: Forest, state: Mapping[str, Any]) -> dict[str, Tensor]:
        return {}

    def loss(self, out: Outputs, forest: Forest) -> Loss:
        logp_R = forest.sum_R(out.logp_M)
        mean_R = logp_R / forest.length_R.clamp(min=1)
        odds_R = log_odds(mean_R)
        loss_P = -mean_R[forest.better_P] + self.coef * preference_loss(odds_R[forest.better_P] - odds_R[forest.worse_P])
        value = (loss_P * forest.weight_P).sum() / forest.totals.pairs
        return Loss(value, preference_metrics(self.coef * mean_R, logp_R, forest.better_P, forest.worse_P, forest.totals.pairs))

    def advance(self, state: Mapping[str, Any], metrics: Mapping[str, float]) -> Mapping[str, Any]:
        return state

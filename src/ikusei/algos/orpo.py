"""ORPO: supervised fine-tuning and a preference in one loss, without a reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ikusei.algos.pairs import mean_over_pairs
from ikusei.forest import Forest, Loss, Outputs
from ikusei.maths import log_odds, preference_loss
from ikusei.types import Group


@dataclass(frozen=True)
class ORPO:
    """Odds Ratio Preference Optimization.   arXiv:2403.07691

        p(y) = exp(log pi(y) / |y|),    odds(y) = p(y) / (1 - p(y))
        L    = -log p(chosen) - coef log sigmoid(log odds(chosen) - log odds(rejected)), mean over pairs

    `coef` is the paper's lambda (TRL's beta). The first term is the NLL of the response alone, a mean over its tokens; TRL and the paper's
    own code include the prompt's tokens and take one mean over the batch. The rewards among the metrics are coef log p(y).
    """

    supervised: ClassVar[bool] = True
    needs = frozenset[str]()

    coef: float = 0.1

    def keep(self, group: Group) -> bool:
        return bool(group.pairs)

    def loss(self, out: Outputs, forest: Forest) -> Loss:
        logp_R = forest.sum_R(out.logp_M)
        mean_R = logp_R / forest.length_R.clamp(min=1)
        odds_R = log_odds(mean_R)
        loss_P = -mean_R[forest.better_P] + self.coef * preference_loss(odds_R[forest.better_P] - odds_R[forest.worse_P])
        return mean_over_pairs(loss_P, self.coef * mean_R, out, forest)

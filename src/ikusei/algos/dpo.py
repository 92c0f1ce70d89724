"""DPO and its switches: cDPO, the length-normalised form, R-DPO and DPO + NLL are named values of one class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ikusei.algos.pairs import mean_over_pairs
from ikusei.forest import Forest, Loss, Outputs
from ikusei.maths import preference_loss
from ikusei.types import Group


@dataclass(frozen=True)
class DPO:
    """Direct Preference Optimization: the policy is its own reward model.   arXiv:2305.18290

        d(y)   = log pi(y) - log ref(y)                 a sum over the response's target tokens, its end token included
        margin = beta (d(chosen) - d(rejected))
        L      = -log sigmoid(margin), mean over pairs

    Each switch adds to this:
        label_smoothing e    -(1 - e) log sigmoid(margin) - e log sigmoid(-margin): cDPO, for a share e of wrong labels
        per_token            d(y) / |y|: length-normalised DPO (Tulu 3, arXiv:2411.15124); beta must be about |y| times larger, say 5
        nll_coef a           + a (-log pi(chosen) / |chosen|): DPO + NLL (arXiv:2404.19733, with a = 1): keeps chosen responses likely
        length_coef a        margin + a (|chosen| - |rejected|): R-DPO (arXiv:2403.19159), against length bias

    A ranking contributes all its pairs. Left out: LD-DPO and WPO.
    """

    supervised: ClassVar[bool] = True
    needs = frozenset({"reference"})

    beta: float = 0.1
    label_smoothing: float = 0.0
    per_token: bool = False
    nll_coef: float = 0.0
    length_coef: float = 0.0

    def keep(self, group: Group) -> bool:
        return bool(group.pairs)

    def loss(self, out: Outputs, forest: Forest) -> Loss:
        better_P, worse_P, length_R = forest.better_P, forest.worse_P, forest.length_R.clamp(min=1)
        logp_R, ahead_R = forest.sum_R(out.logp_M), forest.sum_R(out.logp_M - forest["ref_logp_M"])
        reward_R = self.beta * (ahead_R / length_R if self.per_token else ahead_R)
        margin_P = reward_R[better_P] - reward_R[worse_P] + self.length_coef * (length_R[better_P] - length_R[worse_P])
        loss_P = preference_loss(margin_P, self.label_smoothing) - self.nll_coef * (logp_R / length_R)[better_P]
        return mean_over_pairs(loss_P, reward_R, out, forest)

"""Shared by the losses on pairs: the mean over pairs, and the metrics."""

from __future__ import annotations

from torch import Tensor

from ikusei.forest import Forest, Loss, Outputs
from ikusei.maths import preference_metrics


def mean_over_pairs(loss_P: Tensor, reward_R: Tensor, out: Outputs, forest: Forest) -> Loss:
    """The mean of [P] losses over all pairs of the step, with the groups' weights. `reward_R` are the implicit rewards, for metrics."""
    value = (loss_P * forest.weight_P).sum() / forest.denominators.pairs
    logp_R = forest.sum_R(out.logp_M)
    return Loss(value, preference_metrics(reward_R, logp_R, forest.better_P, forest.worse_P, forest.denominators.pairs))

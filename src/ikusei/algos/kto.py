"""KTO: learns from single responses labelled desirable or undesirable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ikusei.forest import Forest, Loss, Outputs
from ikusei.types import Group


@dataclass(frozen=True)
class KTO:
    """Kahneman-Tversky Optimization: gains and losses relative to a baseline of the policy's KL.   arXiv:2402.01306

        d(y) = log pi(y) - log ref(y)
        z    = max(0, mean of d(y') over the step), y' a response under the prompt of another group; no gradient
        L    = desirable_weight   (1 - sigmoid(beta (d(y) - z)))        label > 0
             | undesirable_weight (1 - sigmoid(beta (z - d(y)))),       else; mean over responses

    Without labels the ranking decides: the best tier is desirable, the others are not. The paper recommends
    desirable_weight n_desirable / (undesirable_weight n_undesirable) between 1 and 4/3.
    """

    supervised: ClassVar[bool] = True
    needs = frozenset({"reference", "mismatched"})

    beta: float = 0.1
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0

    def keep(self, group: Group) -> bool:
        return bool(group.pairs) or all(response.label is not None for response in group.responses)

    def credit(self, groups: Sequence[Group], forest: Forest, state: Mapping[str, Any]) -> dict[str, Tensor]:
        desirable = torch.tensor([each for group in groups for each in _desirable(group)])
        of_its_kind_R = torch.where(desirable, desirable.sum(), (~desirable).sum())
        other_R = forest.sum_R(forest["other_logp_M"] - forest["other_ref_logp_M"])
        return {
            "verdict_R": torch.where(desirable, 1.0, -1.0),
            "share_R": forest.denominators.responses / of_its_kind_R,  # for the means over those of a kind, among the metrics
            "baseline_R": other_R.mean().clamp(min=0).expand(forest.num_responses),
        }

    def loss(self, out: Outputs, forest: Forest) -> Loss:
        verdict_R, logp_R = forest["verdict_R"], forest.sum_R(out.logp_M)
        reward_R = self.beta * forest.sum_R(out.logp_M - forest["ref_logp_M"])
        gain_R = verdict_R * (reward_R - self.beta * forest["baseline_R"])
        care_R = torch.where(verdict_R > 0, self.desirable_weight, self.undesirable_weight) * forest.weight_G[forest.group_R]
        value = (care_R * (-gain_R).sigmoid()).sum() / forest.denominators.responses
        share_R = forest["share_R"] / forest.denominators.responses  # also right for one row alone, under its own totals
        reward_R, logp_R = reward_R * share_R, logp_R * share_R
        metrics = {"kl": forest["baseline_R"].sum() / forest.denominators.responses, "rewards/margins": (reward_R * verdict_R).sum()}
        for name, on_R in (("chosen", verdict_R > 0), ("rejected", verdict_R < 0)):
            metrics |= {f"rewards/{name}": reward_R[on_R].sum(), f"logps/{name}": logp_R[on_R].sum()}
        return Loss(value, {name: x.detach() for name, x in metrics.items()})


def _desirable(group: Group) -> list[bool]:
    """Of each response: by its label, else by the ranking."""
    labels = [response.label for response in group.responses if response.label is not None]
    if len(labels) == len(group.responses):
        return [label > 0 for label in labels]
    assert group.tiers is not None, "`keep` lets nothing else through"
    return [tier == min(group.tiers) for tier in group.tiers]

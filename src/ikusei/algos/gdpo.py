"""GDPO: GRPO for several rewards, which are normalised one by one before they are added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ikusei.algos.grpo import GRPO
from ikusei.forest import Forest, Loss, Outputs
from ikusei.maths import centred, demand, group_advantages
from ikusei.types import Group


@dataclass(frozen=True)
class GDPO:
    """Group reward-Decoupled normalisation Policy Optimization.   arXiv:2601.05242

        a_i = sum_k weight_k (r_ki - mean(r_k)) / (std(r_k) + 1e-4)          of each reward k within the group
        A_i = (a_i - mean(a)) / (std(a) + 1e-4)                              over all responses of the step
        L   = GRPO's

    GRPO normalises the sum of the rewards, and so cannot distinguish (0, 2) from (1, 1). Weights are those of the recipe's rewards; a gate
    multiplies each of them first. A reward that does not apply to a response adds nothing.
    """

    needs = frozenset({"old"})

    clip_low: float = 0.2
    clip_high: float = 0.2

    def __post_init__(self) -> None:
        demand(self, min(self.clip_low, self.clip_high) >= 0, "clips 0 or more")

    def keep(self, group: Group) -> bool:
        return len(group.responses) > 1  # all of them are in the step's mean and spread

    def credit(self, groups: Sequence[Group], forest: Forest, state: Mapping[str, Any]) -> dict[str, Tensor]:
        sums = [a for group in groups for a in _sums(group)]
        return {"advantage_R": torch.tensor(centred(sums, scaled=True))}

    def loss(self, out: Outputs, forest: Forest) -> Loss:
        return GRPO(self.clip_low, self.clip_high).loss(out, forest)


def _sums(group: Group) -> list[float]:
    """For each response, the weighted sum of its rewards, each normalised over the responses that it applies to."""
    terms = [response.score.terms for response in group.responses if response.score]
    sums = [0.0] * len(terms)
    for name in {name: None for each in terms for name in each}:
        rows = [i for i, each in enumerate(terms) if name in each]
        weight = terms[rows[0]][name].weight
        for i, a in zip(rows, group_advantages([[terms[i][name].value for i in rows]], "group"), strict=True):
            sums[i] += weight * a
    return sums

"""Rows of another task beside the step's own: they keep alive what the model knew before.

    L = L_algorithm + weight * L_lm        L_lm: the mean over the scored tokens of the replayed rows of -log pi(t)

One thing under several names: a replay share in continued pretraining (of s of the rows, weight s / (1 - s)), PPO-ptx (weight 27.8 of
arXiv:2203.02155, where the PPO loss is small), or a supervised term beside any other loss.
"""

from __future__ import annotations

from dataclasses import dataclass

from ikusei.forest import Forest, Loss, Outputs, plant
from ikusei.loops.data import Rows
from ikusei.protocols import LossFunction


@dataclass(frozen=True)
class Replaying:
    """How much: `examples` rows of the recipe's `replay_task` in each step, and the weight of their loss."""

    examples: int = 0
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.examples < 0 or not 0 < self.weight < float("inf"):
            raise ValueError(f"got examples={self.examples}, weight={self.weight}; allowed: examples 0 or more, weight > 0")


@dataclass(frozen=True)
class Replay:
    """Where from."""

    rows: Rows
    settings: Replaying

    def pieces(self, step: int) -> list[tuple[Forest, LossFunction]]:
        """What an update of this step (from 0) adds to its own; the same for every update of the step."""
        if self.settings.examples == 0:
            return []
        forest = plant(self.rows.examples(step, self.settings.examples))

        def loss(out: Outputs, forest: Forest) -> Loss:
            value = -(out.logp_M * forest.weight_M).sum() / forest.totals.tokens
            return Loss(self.settings.weight * value, {"replay/loss": value.detach()})

        return [(forest, loss)]

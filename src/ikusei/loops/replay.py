"""Replay: rows of another task are mixed into each step, against forgetting.

    L = L_algorithm + weight * L_lm        L_lm: the mean of -log pi(t) over the target tokens of the replayed rows

This covers a replay share in continued pretraining (a share s of the rows is weight s / (1 - s)), PPO-ptx (weight 27.8 in
arXiv:2203.02155, where the PPO loss is small), and a supervised term beside any other loss.
"""

from __future__ import annotations

from dataclasses import dataclass

from ikusei.forest import Forest, Loss, Outputs, plant
from ikusei.loops.data import Rows
from ikusei.protocols import LossFunction


@dataclass(frozen=True)
class ReplaySettings:
    """`examples` rows of the recipe's `replay_task` in each step, and the weight of their loss."""

    examples: int = 0
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.examples < 0 or not 0 < self.weight < float("inf"):
            raise ValueError(f"got examples={self.examples}, weight={self.weight}; allowed: examples 0 or more, weight > 0")


@dataclass(frozen=True)
class Replay:
    """The rows to replay, and the settings."""

    rows: Rows
    settings: ReplaySettings

    def pieces(self, step: int) -> list[tuple[Forest, LossFunction]]:
        """Further (forest, loss) pairs for the updates of this step (from 0), the same for every update of the step."""
        if self.settings.examples == 0:
            return []
        forest = plant(self.rows.examples(step, self.settings.examples))

        def loss(out: Outputs, forest: Forest) -> Loss:
            value = -(out.logp_M * forest.weight_M).sum() / forest.denominators.tokens
            return Loss(self.settings.weight * value, {"replay/loss": value.detach()})

        return [(forest, loss)]

"""Language modelling: pretraining and supervised fine-tuning. The mask is the only difference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ikusei.forest import Forest, Loss, Outputs
from ikusei.types import Group


@dataclass(frozen=True)
class LanguageModelling:
    """Next-token cross entropy over the scored tokens.

        L = -sum_t w log pi(t) / total_tokens

    Pretraining scores every token of a text, fine-tuning those of the answer; the end token is one of them. The mean is over the tokens of
    the whole step, so it does not depend on how the batch was cut; w is the group's weight. Left out: label smoothing.
    """

    supervised: ClassVar[bool] = True  # learns from the texts of the data, not from samples
    needs = frozenset[str]()

    def keep(self, group: Group) -> bool:
        return any(any(response.mask) for response in group.responses)

    def loss(self, out: Outputs, forest: Forest) -> Loss:
        value = -(out.logp_M * forest.weight_M).sum() / forest.totals.tokens
        return Loss(value, {"entropy": out.entropy_M.detach().sum() / forest.totals.laid_tokens})

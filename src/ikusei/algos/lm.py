"""Language modelling: pretraining and supervised fine-tuning. The mask is the only difference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ikusei.forest import Forest, Loss, Outputs
from ikusei.types import Group


@dataclass(frozen=True)
class LanguageModelling:
    """Next-token cross entropy over the target tokens.

        L = -sum_t w log pi(t) / total_tokens

    In pretraining every token of a text is a target, in fine-tuning those of the response; the end token is one of them. The mean is over
    the whole step, so it does not depend on the micro-batches; w is the group's weight. Left out: label smoothing.
    """

    supervised: ClassVar[bool] = True  # learns from the texts of the data, not from samples
    needs = frozenset[str]()

    def keep(self, group: Group) -> bool:
        return any(any(response.mask) for response in group.responses)

    def loss(self, out: Outputs, forest: Forest) -> Loss:
        value = -(out.logp_M * forest.weight_M).sum() / forest.denominators.tokens
        return Loss(value, {"entropy": out.entropy_M.detach().sum() / forest.denominators.laid_tokens})

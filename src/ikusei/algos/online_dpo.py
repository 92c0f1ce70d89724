"""Online DPO: the pairs are the policy's own samples, ranked by their rewards."""

from __future__ import annotations

from dataclasses import dataclass

from ikusei.algos.dpo import DPO
from ikusei.forest import Forest, Loss, Outputs
from ikusei.types import Group


@dataclass(frozen=True)
class OnlineDPO:
    """Online DPO (OAIF): sample, rank by the total reward, take DPO's step.   arXiv:2402.04792

        L = DPO's loss, mean over all pairs of a prompt's samples whose total rewards differ

    The paper samples two responses to each prompt and an LLM judge chooses the better one. Here any reward ranks any number of responses,
    and equal rewards form no pair. Left out: online IPO and SLiC, and a penalty for truncated samples (a reward can give one).
    """

    needs = frozenset({"reference", "tiers"})

    beta: float = 0.1

    def keep(self, group: Group) -> bool:
        return len(set(group.totals)) > 1

    def loss(self, out: Outputs, forest: Forest) -> Loss:
        result = DPO(self.beta).loss(out, forest)
        return Loss(result.value, {**result.metrics, "entropy": out.entropy_M.detach().sum() / forest.denominators.laid_tokens})

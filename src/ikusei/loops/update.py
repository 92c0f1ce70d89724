"""One optimiser step: forward and backward in micro-batches, then the update. A non-finite loss or gradient is traced to its group."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ikusei.forest import Forest, Loss, Outputs
from ikusei.protocols import LossFunction, Metrics, Policy
from ikusei.types import Group


class NonFinite(FloatingPointError):
    """A loss or gradient is NaN or infinite; the message names the group. No update was made."""


def update(policy: Policy, pieces: Sequence[tuple[Forest, LossFunction]], tokens_per_microbatch: int, lr: float) -> Metrics:
    """One optimiser step on the sum of the losses, in micro-batches. Returns the metrics of losses and step. Raises FloatingPointError,
    with the weights unchanged, where the loss or the gradient is not finite."""
    total: Metrics = {}
    for forest, loss in pieces:
        for microbatch in forest.split(tokens_per_microbatch) if forest.trees else []:
            for name, value in policy.forward_backward(microbatch, loss).items():
                total[name] = total.get(name, 0.0) + value
    if not math.isfinite(total.get("loss", 0.0)):
        policy.zero_grad()
        raise NonFinite(f"the loss is {total['loss']}")
    return total | policy.optim_step(lr)


@contextmanager
def traced(policy: Policy, number: int, groups: Sequence[Group], forest: Forest, loss: LossFunction) -> Iterator[None]:
    """Around an update: turns FloatingPointError into NonFinite, which names step `number` (from 0) and the group."""
    try:
        yield
    except FloatingPointError as error:
        raise NonFinite(f"step {number + 1}: {error}, {blame(policy, forest, groups, loss)}") from error


def blame(policy: Policy, forest: Forest, groups: Sequence[Group], loss: LossFunction) -> str:
    """Names the first group whose loss is not finite."""
    for group, tree in zip(groups, forest.each_tree(), strict=True):
        out = policy.forward(tree)
        if not math.isfinite(float(loss(out, tree.to(out.logp_M.device)).value)):
            return f"first in group {group.prompt.id} ({group.prompt.text[:80]!r})"
    return "in no group alone: only the gradient is not finite; a smaller learning rate or clip_norm may help"


def with_gap(loss: LossFunction) -> LossFunction:
    """The loss with one more metric, `sampling/logp_gap`: mean |log pi - log pi_sampled| over target tokens, in nats."""

    def measured(out: Outputs, forest: Forest) -> Loss:
        result = loss(out, forest)
        gap = (out.logp_M.detach() - forest["sampled_logp_M"]).abs().sum() / forest.denominators.laid_tokens
        return Loss(result.value, {**result.metrics, "sampling/logp_gap": gap})

    return measured

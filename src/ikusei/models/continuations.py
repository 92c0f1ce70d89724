"""Log-likelihood of continuations, and whether they are the greedy ones: for multiple-choice benchmarks.

Continuations of one context are leaves of one tree, so a question is computed once for all of its choices.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ikusei.forest import Forest, plant
from ikusei.models.causal import CausalModel
from ikusei.models.score import TOKENS_PER_MICROBATCH
from ikusei.types import Group, Prompt, Response

ROWS = 256  # of logits in memory at one time

Pair = tuple[Sequence[int], Sequence[int]]  # the tokens of a context, and of what follows it


def continuations(causal: CausalModel, pairs: Sequence[Pair]) -> list[tuple[float, bool]]:
    """(log p in nats, whether it is the greedy continuation) of each pair. Contexts that are too long are truncated on the left. The last
    token is not an input, so the context length plus 1 fits. Raises ValueError where a continuation alone does not fit."""
    same: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, (context, tokens) in enumerate(pairs):
        if len(tokens) > causal.context:
            raise ValueError(f"a text of {len(tokens)} tokens; the model's context holds {causal.context}; take shorter ones")
        same[tuple(context[-(causal.context + 1 - len(tokens)) :])].append(index)
    found: dict[int, tuple[float, bool]] = {}
    for batch in _batches(pairs, same):
        indices = [index for _, each in batch for index in each]
        logp_M, greedy_M = _read(causal, plant([group for group, _ in batch]))
        lengths = [len(pairs[index][1]) for index in indices]
        for index, logp, greedy in zip(indices, logp_M.split(lengths), greedy_M.split(lengths), strict=True):
            found[index] = (float(logp.sum()), bool(greedy.all()))
    return [found[index] for index in range(len(pairs))]


def _batches(pairs: Sequence[Pair], same: dict[tuple[int, ...], list[int]]) -> Iterator[list[tuple[Group, list[int]]]]:
    """Batches of trees, with the indices of their leaves in `pairs`, of at most about TOKENS_PER_MICROBATCH tokens."""
    batch, used = [], 0
    for context, indices in same.items():
        leaves = tuple(Response(tuple(tokens), (True,) * len(tokens), "") for tokens in (pairs[index][1] for index in indices))
        size = len(context) + sum(len(leaf.tokens) for leaf in leaves)
        if batch and used + size > TOKENS_PER_MICROBATCH:
            yield batch
            batch, used = [], 0
        batch.append((Group(Prompt("", context, ""), leaves), indices))
        used += size
    if batch:
        yield batch


@torch.inference_mode()
def _read(causal: CausalModel, forest: Forest) -> tuple[Tensor, Tensor]:
    """[M] log p of each token, and whether it is the argmax."""
    logp, greedy = [], []
    inside = replace(forest, position_N=forest.position_N.clamp(max=causal.context - 1))  # of last tokens, which nothing is read from
    for each in inside.split(TOKENS_PER_MICROBATCH):
        microbatch = each.to(causal.device)
        with causal.autocast():
            hidden_M = causal.body.hidden(microbatch, "predicts")
            for hidden, target in zip(hidden_M.split(ROWS), microbatch.target_M.split(ROWS), strict=True):
                logits = causal.logits(hidden)
                logp.append(logits.log_softmax(-1).gather(1, target[:, None]).squeeze(1).cpu())
                greedy.append((logits.argmax(-1) == target).cpu())
    return torch.cat(logp), torch.cat(greedy)

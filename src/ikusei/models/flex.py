"""The forest's attention on a GPU: FlexAttention, with the tree as its mask, so that blocks of siblings are never computed.

Outside of a GPU the same function computes in full, slowly; the tests hold it against the blocks of `attention.py` so.
Left out: another kernel for the many short trees of which a block of 128 holds several.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from ikusei.forest import Forest


class FlexForest:
    """The block masks of a forest, one for each sliding window."""

    def __init__(self, forest: Forest) -> None:
        self.position_N, self.leaf_N = forest.position_N, forest.leaf_N
        sizes = torch.tensor([tree.size for tree in forest.trees], device=forest.tokens_N.device)
        self.tree_N = torch.arange(len(forest.trees), device=sizes.device).repeat_interleave(sizes)
        self.masks: dict[int | None, BlockMask] = {}

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int | None, softcap: float | None) -> Tensor:
        """query [1, H, N, D], key and value [1, Hkv, N, D] -> [1, H, N, D]."""
        capped = None if softcap is None else lambda score, b, h, q, k: torch.tanh(score / softcap) * softcap
        return _attention(query.device.type)(
            query, key, value, score_mod=capped, block_mask=self._mask(window), scale=scaling, enable_gqa=key.shape[1] != query.shape[1]
        )

    def _mask(self, window: int | None) -> BlockMask:
        if window not in self.masks:
            position, leaf, tree = self.position_N, self.leaf_N, self.tree_N

            def sees(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
                back = position[q] - position[k]
                near = back >= 0 if window is None else (back >= 0) & (back < window)
                return near & (tree[q] == tree[k]) & ((leaf[k] == leaf[q]) | (leaf[k] == -1))

            N = position.numel()
            self.masks[window] = create_block_mask(sees, B=None, H=None, Q_LEN=N, KV_LEN=N, device=position.device.type)
        return self.masks[window]


@cache
def _attention(device: str) -> Any:
    """Compiled where that makes a kernel; lengths change at every step, so they are no constants of it."""
    return torch.compile(flex_attention, dynamic=True) if device == "cuda" else flex_attention

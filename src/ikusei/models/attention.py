"""Attention for forests and for decoding, registered with transformers' `AttentionInterface` under one name.

A model loaded with `attn_implementation="ikusei"` computes its queries, keys and values as ever and hands them here, with a `layout` that
is passed as a keyword of `model.forward` through every layer (and through gradient checkpointing). The layout defines the mask:

    ForestLayout   one row [1, N] of trees: a token attends to its own leaf up to itself, and to its root
    KVCache          (samplers/kv_cache.py) one new token in each of B slots, over the cached keys and values

A GPU is served by flex.py; on a CPU layers without windows and caps by flash.py. Otherwise the row is cut into blocks of queries and keys,
gathered by index and padded inside the block alone; everything outside attention is free of padding. Trees whose root is long stay whole,
one block with a tree mask, so that the root's keys are never copied for each leaf; the leaves of the others become one batch over
[root | own leaf], with their roots as another batch. The mask is built from positions, for each window that a layer asks for. Softmax in
full where the scores are capped (Gemma 2), else torch's fused kernel.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

from ikusei.forest import Forest, Tree
from ikusei.models.flash import AttentionCall, attention_calls, flash_forest, padded
from ikusei.models.flex import FlexForest

NAME = "ikusei"
COPIES = 4  # leaves go in a batch of their own while that copies keys and values at most this many times


@dataclass(frozen=True)
class Form:
    """A layer's attention parameters: scores times `scaling`, a sliding `window` in tokens, tanh capping at `softcap`."""

    scaling: float
    window: int | None = None
    softcap: float | None = None


class Layout(Protocol):
    """Computes attention under its own mask. Tensors are [B, heads, tokens, dim]; the output has the shape of the queries."""

    def attend(self, layer: nn.Module, query: Tensor, key: Tensor, value: Tensor, form: Form) -> Tensor: ...


def attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, *, layout: Layout, **options: Any
) -> tuple[Tensor, None]:
    """The function that transformers calls in each layer. Dropout is never applied. Where a layer needs what is unknown here (attention
    sinks, biases), the probe at loading time finds a difference, and the padded layout is used instead."""
    scaling = options.get("scaling")
    form = Form(query.shape[-1] ** -0.5 if scaling is None else scaling, options.get("sliding_window"), options.get("softcap"))
    return layout.attend(module, query, key, value, form).transpose(1, 2), None


AttentionInterface.register(NAME, attention)


def masked_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, form: Form) -> Tensor:
    """softmax(cap(scaling * q k) + mask) v.   query [B, H, Tq, D], key and value [B, Hkv, Tk, D], mask added, [B, 1, Tq, Tk]."""
    if form.softcap is None:
        grouped = key.shape[1] != query.shape[1]
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=form.scaling, enable_gqa=grouped)
    repeat = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeat, 1), value.repeat_interleave(repeat, 1)
    scores = torch.tanh(query @ key.transpose(2, 3) * (form.scaling / form.softcap)) * form.softcap
    return (scores + mask).softmax(-1, dtype=torch.float32).to(value.dtype) @ value


@dataclass
class Block:
    """Queries [B, Tq] and keys [B, Tk] as rows of N, -1 where padded."""

    query: Tensor
    key: Tensor
    masks: dict[tuple[int | None, torch.dtype], Tensor] = field(default_factory=dict)

    def mask(self, position_N: Tensor, leaf_N: Tensor, window: int | None, dtype: torch.dtype) -> Tensor:
        """[B, 1, Tq, Tk]: 0 where the key is the query's root or own leaf, not after it and within the window; else -inf."""
        if (window, dtype) not in self.masks:
            at_q, at_k = position_N[self.query][:, :, None], position_N[self.key][:, None, :]
            leaf_q, leaf_k = leaf_N[self.query][:, :, None], leaf_N[self.key][:, None, :]
            allowed = ((leaf_k == leaf_q) | (leaf_k == -1)) & (at_k <= at_q) & (self.key >= 0)[:, None, :]
            if window is not None:
                allowed &= at_q - at_k < window
            allowed[:, :, 0] |= self.query < 0  # a padded query needs one key, so that its softmax is finite; its output is not read
            mask = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(~allowed, float("-inf"))
            self.masks[window, dtype] = mask.unsqueeze(1)
        return self.masks[window, dtype]


class ForestLayout:
    """The attention of a forest, for all layers. With `keep`, each layer's keys and values are stored in `kept`."""

    def __init__(self, forest: Forest, keep: bool = False) -> None:
        self.forest = forest
        self.kept: dict[nn.Module, tuple[Tensor, Tensor]] | None = {} if keep else None
        self.forms: set[Form] = set()  # of the layers seen

    def attend(self, layer: nn.Module, query: Tensor, key: Tensor, value: Tensor, form: Form) -> Tensor:
        """query [1, H, N, D], key and value [1, Hkv, N, D] -> [1, H, N, D]."""
        device = query.device.type
        if torch.is_autocast_enabled(device):
            query, key, value = (x.to(torch.get_autocast_dtype(device)) for x in (query, key, value))
        self.forms.add(form)
        if self.kept is not None:
            self.kept[layer] = (key[0], value[0])
        if device == "cuda":
            return self.flex.attend(query, key, value, form.scaling, form.window, form.softcap)
        query_N, key_N, value_N = (x[0].transpose(0, 1) for x in (query, key, value))  # [N, heads, D]
        plain = form.softcap is None and (form.window is None or form.window > self.longest)
        if plain:
            seen_N = flash_forest(query_N, key_N, value_N, self.calls, form.scaling)
        else:
            seen_N = self._by_blocks(query_N, key_N, value_N, form)
        return seen_N.transpose(0, 1).unsqueeze(0)

    @cached_property
    def calls(self) -> list[AttentionCall]:
        return attention_calls(self.forest.trees)

    @cached_property
    def flex(self) -> FlexForest:
        return FlexForest(self.forest)

    @cached_property
    def longest(self) -> int:
        """The largest position."""
        return max(tree.root + max(tree.leaves, default=0) for tree in self.forest.trees) - 1

    @cached_property
    def blocks(self) -> list[Block]:
        device = self.forest.tokens_N.device
        return [Block(query.to(device), key.to(device)) for query, key in _blocks(self.forest.trees)]

    @cached_property
    def place_N(self) -> Tensor:
        """The index of each row of N in the concatenated outputs of the blocks."""
        rows = torch.cat([block.query.flatten() for block in self.blocks])
        place = torch.empty(self.forest.tokens_N.numel(), dtype=torch.long, device=rows.device)
        place[rows[rows >= 0]] = (rows >= 0).nonzero().squeeze(1)
        return place

    def _by_blocks(self, query_N: Tensor, key_N: Tensor, value_N: Tensor, form: Form) -> Tensor:
        outputs = []
        for block in self.blocks:
            mask = block.mask(self.forest.position_N, self.forest.leaf_N, form.window, query_N.dtype)
            q, k, v = (_gather(x, rows) for x, rows in ((query_N, block.query), (key_N, block.key), (value_N, block.key)))
            outputs.append(masked_attention(q, k, v, mask, form).transpose(1, 2).flatten(0, 1))
        return torch.cat(outputs).index_select(0, self.place_N)


def _gather(x_N: Tensor, rows: Tensor) -> Tensor:
    """[N, H, D] and rows [B, T] -> [B, H, T, D]; padding reads row 0 and is masked."""
    return x_N.index_select(0, rows.clamp(min=0).flatten()).unflatten(0, rows.shape).transpose(1, 2)


def _blocks(trees: tuple[Tree, ...]) -> list[tuple[Tensor, Tensor]]:
    """The rows of queries and keys of each block. Similar lengths (within a factor of two) share a block."""
    buckets: dict[tuple[str, int, int], list[tuple[range, range, range]]] = defaultdict(list)  # queries, keys: root then leaf
    for tree in trees:
        root, nothing = range(tree.start, tree.start + tree.root), range(0)
        if sum(tree.root + leaf for leaf in tree.leaves) > COPIES * tree.size:
            whole = range(tree.start, tree.start + tree.size)
            buckets["tree", tree.size, 0].append((whole, whole, nothing))
            continue
        buckets["root", tree.root.bit_length(), 0].append((root, root, nothing))
        begin = root.stop
        for length in tree.leaves:
            leaf = range(begin, begin + length)
            buckets["leaf", length.bit_length(), tree.root.bit_length()].append((leaf, root, leaf))
            begin += length
    columns = [tuple(map(padded, zip(*rows, strict=True))) for rows in buckets.values()]
    return [(query, torch.cat([root, leaf], 1)) for query, root, leaf in columns]

"""The keys and values of the responses being written: one slot each, filled from the prompt's and grown by one token a step.

A prompt goes through the model once, in a forest of roots; its keys and values are then copied into the slot of each of its responses.
Decoding is one token in each slot through the same attention function as training, so that the two agree to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ikusei.forest import Totals, plant
from ikusei.models.attention import ForestLayout, Form, masked_attention
from ikusei.models.causal import CausalModel
from ikusei.types import Group, Prompt

GROW = 64  # slots lengthen by this many tokens at a time


@dataclass(frozen=True)
class Prefilled:
    """What is kept of a prompt: the logits [V] after it and, for each layer, its keys and values [Hkv, P, D]."""

    logits: Tensor
    kept: dict[nn.Module, tuple[Tensor, Tensor]]
    length: int


@torch.no_grad()
def prefill(causal: CausalModel, prompts: Sequence[Prompt]) -> list[Prefilled]:
    """The prompts through the model, all in one row."""
    forest = plant([Group(prompt, ()) for prompt in prompts], Totals(1, 1, 0, 1)).to(causal.device)
    layout = ForestLayout(forest, keep=True)
    with causal.autocast():
        hidden = causal.body(forest.tokens_N[None], position_ids=forest.position_N[None], use_cache=False, layout=layout)
        logits = causal.logits(hidden[0, [tree.start + tree.root - 1 for tree in forest.trees]])
    kept = layout.kept or {}
    rows = [slice(tree.start, tree.start + tree.root) for tree in forest.trees]
    return [
        Prefilled(logits[i], {layer: (k[:, row], v[:, row]) for layer, (k, v) in kept.items()}, row.stop - row.start)
        for i, row in enumerate(rows)
    ]


class Slots:
    """B slots; `length_B` says how many tokens each holds. A `Layout`: its `attend` adds the new token's keys and values, then looks."""

    def __init__(self, causal: CausalModel, size: int) -> None:
        self.causal = causal
        self.length_B = torch.zeros(size, dtype=torch.long, device=causal.device)
        self.rows = torch.arange(size, device=causal.device)
        self.cache: dict[nn.Module, tuple[Tensor, Tensor]] = {}  # [B, Hkv, L, D] each
        self.capacity = 0
        self.reach = 0  # tokens looked at in this step: the longest slot's
        self.masks: dict[int | None, Tensor] = {}

    def fill(self, row: int, prompt: Prefilled) -> None:
        """Put a prompt into a slot."""
        self._grow(prompt.length + 1, prompt.kept)
        for layer, (key, value) in prompt.kept.items():
            keys, values = self.cache[layer]
            keys[row, :, : prompt.length] = key
            values[row, :, : prompt.length] = value
        self.length_B[row] = prompt.length

    @torch.no_grad()
    def step(self, token_B: Tensor) -> Tensor:
        """One token into each slot -> logits [B, V] of the next."""
        self.reach = int(self.length_B.max()) + 1
        self._grow(self.reach, self.cache)
        self.masks = {}
        with self.causal.autocast():
            hidden = self.causal.body(token_B[:, None], position_ids=self.length_B[:, None], use_cache=False, layout=self)
            logits = self.causal.logits(hidden[:, 0])
        self.length_B += 1
        return logits

    def attend(self, layer: nn.Module, query: Tensor, key: Tensor, value: Tensor, form: Form) -> Tensor:
        """query [B, H, 1, D], key and value [B, Hkv, 1, D] -> [B, H, 1, D]."""
        keys, values = self.cache[layer]
        keys[self.rows, :, self.length_B] = key[:, :, 0].to(keys.dtype)
        values[self.rows, :, self.length_B] = value[:, :, 0].to(values.dtype)
        keys, values = keys[:, :, : self.reach].to(query.dtype), values[:, :, : self.reach].to(query.dtype)
        return masked_attention(query, keys, values, self._mask(form.window, query.dtype), form)

    def _mask(self, window: int | None, dtype: torch.dtype) -> Tensor:
        if window not in self.masks:
            behind = self.length_B[:, None] - torch.arange(self.reach, device=self.rows.device)  # [B, L] how far back each key is
            hidden = (behind < 0) if window is None else (behind < 0) | (behind >= window)
            mask = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, float("-inf"))
            self.masks[window] = mask[:, None, None]
        return self.masks[window]

    def free(self, rows: Sequence[int]) -> None:
        """These slots are done; until they are filled again they idle at the beginning of the context."""
        self.length_B[list(rows)] = 0

    def keep(self, rows: Sequence[int]) -> None:
        """Only these slots go on, in this order."""
        index = torch.tensor(rows, device=self.rows.device)
        self.cache = {layer: (keys[index], values[index]) for layer, (keys, values) in self.cache.items()}
        self.length_B, self.rows = self.length_B[index], self.rows[: len(rows)]

    def _grow(self, length: int, like: dict[nn.Module, tuple[Tensor, Tensor]]) -> None:
        """Room for `length` tokens in each slot. `like` says which layers there are and the form of their keys [..., Hkv, _, D]."""
        if length <= self.capacity:
            return
        capacity = -(-length // GROW) * GROW
        for layer, pair in like.items():
            old = self.cache.get(layer)
            room = [t.new_zeros(len(self.rows), t.shape[-3], capacity, t.shape[-1]) for t in pair]
            for new, tensor in zip(room, old or (), strict=False):
                new[:, :, : self.capacity] = tensor
            self.cache[layer] = (room[0], room[1])
        self.capacity = capacity

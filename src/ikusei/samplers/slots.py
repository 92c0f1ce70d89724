"""The keys and values of the responses being written: one slot each, all in step.

    column    0  1  2  3  4  5  6  7  8 | now           each step writes one column, the same for every slot, so that it is one copy
    slot 0    .  .  p  p  p  a  a  a  a | a             a slot begins where its response does, or with its prompt's copy
    slot 1    .  .  .  .  .  .  p  p  b | b             what lies before is masked; distance in columns is distance in positions

A prompt goes through the model once, in a forest of roots. A long one is kept once and looked at by all of its responses together, as one
matrix product, which is why the slots of a prompt lie side by side; a short one is copied into its slots, which costs less than the
further products. Windows are slices of columns. `arrange` drops what is finished, appends what begins, and closes up the columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor, nn

from ikusei.forest import Totals, plant
from ikusei.models.attention import ForestLayout, Form
from ikusei.models.causal import CausalModel
from ikusei.models.product import product
from ikusei.types import Group, Prompt

GROW = 64  # columns are added so many at a time
SHARED = 96  # a prompt with so many tokens is looked at where it is, a shorter one is copied into its slots

Pair = tuple[Tensor, Tensor]  # keys and values


@dataclass(frozen=True, eq=False)
class Prefilled:
    """What is kept of a prompt: the logits [V] after it and, for each layer, its keys and values [Hkv, P, D]."""

    logits: Tensor
    kept: dict[nn.Module, Pair]
    length: int


class Roots:
    """The prompts that are looked at where they are. `roots[b]` is slot b's, None where it has a copy; those of one prompt lie together."""

    def __init__(self, roots: Sequence[Prefilled | None], device: torch.device) -> None:
        self.of: list[tuple[Prefilled, slice]] = []
        begin = 0
        for root, members in groupby(roots):
            end = begin + len(list(members))
            if root is not None:
                self.of.append((root, slice(begin, end)))
            begin = end
        lengths = torch.tensor([0 if root is None else root.length for root in roots], device=device)
        self.longest = max((root.length for root, _ in self.of), default=0)
        outside = torch.arange(self.longest, device=device) >= lengths[:, None]
        self.hidden = torch.zeros(outside.shape, device=device).masked_fill_(outside, float("-inf"))  # [B, longest]

    def scores(self, layer: nn.Module, q: Tensor) -> Tensor:
        """q [B, Hkv, repeats, D] -> [B, H, longest]; what lies beyond a prompt's length is 0, for `hidden` to hide."""
        B, kv, repeats, _ = q.shape
        scores = q.new_zeros(B, kv * repeats, self.longest)
        for root, rows in self.of:
            together = torch.bmm(q[rows].transpose(0, 1).flatten(1, 2), root.kept[layer][0].transpose(1, 2))
            scores[rows, :, : root.length] = together.unflatten(1, (-1, repeats)).transpose(0, 1).flatten(1, 2)
        return scores

    def add(self, layer: nn.Module, p: Tensor, seen: Tensor) -> None:
        """Adds to `seen` [B, H, D] what weights p [B, H, longest] see."""
        for root, rows in self.of:
            kv = root.kept[layer][1].shape[0]
            weight = p[rows, :, : root.length].unflatten(1, (kv, -1))  # [rows, Hkv, repeats, P]
            together = torch.bmm(weight.transpose(0, 1).flatten(1, 2), root.kept[layer][1])
            seen[rows] += together.unflatten(1, (-1, weight.shape[2])).transpose(0, 1).flatten(1, 2)


class Slots:
    """A `Layout`: its `attend` adds a column, then looks. Weights are taken as they are when it is made."""

    def __init__(self, causal: CausalModel, size: int) -> None:
        """`size` is the most slots that there will be."""
        self.causal = causal
        self.dtype = torch.bfloat16 if causal.precision == "bf16" else torch.float32
        self.run = causal.body.stack.merged(self.dtype, causal.context, size) if causal.body.stack else causal.body
        bias = causal.head.bias
        self.head = product(causal.head.weight.to(self.dtype), None if bias is None else bias.to(self.dtype), size)
        self.cache: dict[nn.Module, Pair] = {}  # [B, Hkv, columns, D] each
        self.columns = 0  # written so far
        self.begin = torch.zeros(0, dtype=torch.long, device=causal.device)  # [B] each slot's first column
        self.position = torch.zeros_like(self.begin)  # [B] of the next token
        self.hidden = torch.zeros(0, 0, device=causal.device)  # [B, columns] 0, or -inf before a slot begins
        self.looked_at: list[Prefilled | None] = []  # [B] the prompt that a slot looks at where it is
        self.roots = Roots((), causal.device)
        self.windowed = False
        self.masked = False  # whether `hidden` hides anything

    @torch.inference_mode()
    def prefill(self, prompts: Sequence[Prompt]) -> list[Prefilled]:
        """The prompts through the model, all in one row."""
        forest = plant([Group(prompt, ()) for prompt in prompts], Totals(1, 1, 0, 1)).to(self.causal.device)
        layout = ForestLayout(forest, keep=True)
        with self.causal.autocast():
            hidden = self.run(forest.tokens_N[None], forest.position_N[None], layout)
            logits = self.causal.logits(hidden[0, [tree.start + tree.root - 1 for tree in forest.trees]], self.head)
        self.windowed = any(form.window is not None for form in layout.forms)
        kept = {layer: (k.to(self.dtype), v.to(self.dtype)) for layer, (k, v) in (layout.kept or {}).items()}
        rows = [slice(tree.start, tree.start + tree.root) for tree in forest.trees]
        return [
            Prefilled(logits[i], {layer: (k[:, row], v[:, row]) for layer, (k, v) in kept.items()}, row.stop - row.start)
            for i, row in enumerate(rows)
        ]

    def arrange(self, rows: Sequence[int], prompts: Sequence[Prefilled] = ()) -> None:
        """Only these slots go on, in this order; after them a new slot for each prompt, which must not come before theirs."""
        index = torch.tensor(rows, dtype=torch.long, device=self.begin.device)
        shared = [not self.windowed and prompt.length >= SHARED for prompt in prompts]
        own = [0 if share else prompt.length for share, prompt in zip(shared, prompts, strict=True)]
        spans = self.columns - self.begin[index]  # columns that each slot has of its own
        span = int(spans.max()) if rows else 0
        columns = max([span, *own])
        copied = [None if share else prompt for share, prompt in zip(shared, prompts, strict=True)]
        for layer, pair in (self.cache or (prompts[0].kept if prompts else {})).items():
            self.cache[layer] = self._moved(layer, pair, index, span, columns, copied)
        lengths = torch.tensor([prompt.length for prompt in prompts], dtype=torch.long, device=index.device)
        self.begin = columns - torch.cat([spans, torch.tensor(own, dtype=torch.long, device=index.device)])
        self.position = torch.cat([self.position[index], lengths])
        self.looked_at = [self.looked_at[row] for row in rows] + [p if share else None for share, p in zip(shared, prompts, strict=True)]
        self.roots = Roots(self.looked_at, index.device)
        self.columns = columns
        room = next(iter(self.cache.values()))[0].shape[2] if self.cache else 0
        before = torch.arange(room, device=index.device) < self.begin[:, None]
        self.hidden = torch.zeros(before.shape, device=index.device).masked_fill_(before, float("-inf"))
        self.masked = bool(self.roots.of) or bool(before.any())

    def _moved(self, layer: nn.Module, pair: Pair, index: Tensor, span: int, columns: int, copied: Sequence[Prefilled | None]) -> Pair:
        """Room for `columns` and more: the last `span` columns of the slots that go on, then the prompts that are copied."""
        room = -(-(columns + 1) // GROW) * GROW
        moved = []
        for which, tensor in enumerate(pair):
            new = tensor.new_empty(len(index) + len(copied), tensor.shape[-3], room, tensor.shape[-1])
            new[: len(index), :, : columns - span] = 0  # what is hidden must be numbers
            new[len(index) :, :, :columns] = 0
            if span:
                new[: len(index), :, columns - span : columns] = tensor[index, :, self.columns - span : self.columns]
            for row, prompt in enumerate(copied, len(index)):
                if prompt is not None:
                    new[row, :, columns - prompt.length : columns] = prompt.kept[layer][which]
            moved.append(new)
        return moved[0], moved[1]

    @torch.inference_mode()
    def step(self, token_B: Tensor) -> Tensor:
        """One token into each slot -> logits [B, V] of the next."""
        if self.columns == self.hidden.shape[1]:
            self.arrange(range(len(self.looked_at)))
        with self.causal.autocast():
            hidden = self.run(token_B[:, None], self.position[:, None], self)
            logits = self.causal.logits(hidden[:, 0], self.head)
        self.columns += 1
        self.position += 1
        return logits

    def attend(self, layer: nn.Module, query: Tensor, key: Tensor, value: Tensor, form: Form) -> Tensor:
        """query [B, H, 1, D], key and value [B, Hkv, 1, D] -> [B, H, 1, D]."""
        keys, values = self.cache[layer]
        (B, H, _, D), kv, now = query.shape, keys.shape[1], self.columns
        keys[:, :, now], values[:, :, now] = key[:, :, 0], value[:, :, 0]
        first = 0 if form.window is None else max(0, now + 1 - form.window)
        own_keys, own_values = (x.flatten(0, 1)[:, first : now + 1] for x in (keys, values))
        q = (query.to(keys.dtype) * form.scaling).reshape(B, kv, H // kv, D)
        scores = torch.bmm(q.flatten(0, 1), own_keys.transpose(1, 2)).view(B, H, -1)
        hidden = self.hidden[:, first : now + 1]
        if self.roots.of:
            scores, hidden = torch.cat([self.roots.scores(layer, q), scores], -1), torch.cat([self.roots.hidden, hidden], -1)
        scores = scores.float()
        if form.softcap is not None:
            scores = scores.div_(form.softcap).tanh_().mul_(form.softcap)
        if self.masked:
            scores = scores.add_(hidden[:, None])
        p = scores.softmax(-1).to(values.dtype)
        own = p[:, :, self.roots.longest :].reshape(B * kv, H // kv, -1)
        seen = torch.bmm(own, own_values).view(B, H, D)
        if self.roots.of:
            self.roots.add(layer, p, seen)
        return seen[:, :, None]

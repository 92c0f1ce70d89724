"""The KV cache of a decoding batch: one slot for each response, all at the same column.

    column    0  1  2  3  4  5  6  7  8 | now           each step writes the same column of every slot, as one copy
    slot 0    .  .  p  p  p  a  a  a  a | a             a slot begins with its response, or with a copy of its prompt
    slot 1    .  .  .  .  .  .  p  p  b | b             earlier columns are masked; distance in columns is distance in positions

Each prompt is prefilled once, in a forest of roots. The keys and values of a long prompt are stored once and shared by its responses, which
attend to them in one matrix product; the slots of a prompt are therefore adjacent. A short prompt is copied into its slots, which is
cheaper than further products. A sliding window is a slice of columns. `arrange` drops finished slots, appends new ones, and compacts the
columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor, nn

from ikusei.forest import Denominators, plant
from ikusei.models.attention import ForestLayout, Form
from ikusei.models.causal import CausalModel
from ikusei.models.flash import joined
from ikusei.models.fused_decoder import FusedDecoder
from ikusei.models.packed_linear import prepacked
from ikusei.types import Group, Prompt

GROW = 64  # columns are added so many at a time
SHARED = 96  # tokens: a prompt so long is shared by its slots, a shorter one is copied into them

Pair = tuple[Tensor, Tensor]  # keys and values


@dataclass(frozen=True, eq=False)
class Prefilled:
    """A prefilled prompt: the logits [V] after it, and its keys and values [Hkv, P, D] in each layer."""

    logits: Tensor
    kept: dict[nn.Module, Pair]
    length: int


class Roots:
    """The shared prompts. `roots[b]` is slot b's, None where it has a copy; the slots of one prompt are adjacent."""

    def __init__(self, roots: Sequence[Prefilled | None]) -> None:
        self.of: list[tuple[Prefilled, slice]] = []
        begin = 0
        for root, members in groupby(roots):
            end = begin + len(list(members))
            if root is not None:
                self.of.append((root, slice(begin, end)))
            begin = end

    def attend(self, layer: nn.Module, q: Tensor, softcap: float | None) -> tuple[Tensor, Tensor]:
        """q [B, Hkv, repeats, D], scaled -> the attention output over each slot's prompt, same shape, and log-sum-exp [B, Hkv, repeats,
        1]."""
        seen, mass = torch.zeros_like(q), torch.full((*q.shape[:3], 1), float("-inf"), device=q.device)
        for root, rows in self.of:
            keys, values = root.kept[layer]
            together = q[rows].transpose(0, 1)  # [Hkv, rows, repeats, D]
            scores = capped(torch.bmm(together.flatten(1, 2), keys.transpose(1, 2)).float(), softcap)
            out, its_mass = weighed(scores, values)
            seen[rows], mass[rows] = (x.view(*together.shape[:3], -1).transpose(0, 1) for x in (out, its_mass))
        return seen, mass


def capped(scores: Tensor, softcap: float | None) -> Tensor:
    return scores if softcap is None else scores.div_(softcap).tanh_().mul_(softcap)


def weighed(scores: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """scores [B, n, T] and values [B, T, D] -> softmax(scores) values [B, n, D] and the log-sum-exps [B, n, 1]. Overwrites the scores."""
    largest = scores.amax(-1, keepdim=True)
    mass = scores.sub_(largest).exp_().sum(-1, keepdim=True)
    return torch.bmm(scores.to(values.dtype), values).div_(mass), mass.log_().add_(largest)


class KVCache:
    """A `Layout` for decoding: `attend` appends a column of keys and values, then attends. Uses the weights as they are at construction."""

    def __init__(self, causal: CausalModel, size: int) -> None:
        """`size`: the largest number of slots."""
        self.causal = causal
        self.dtype = torch.bfloat16 if causal.precision == "bf16" else torch.float32
        self.run = causal.body.fused.merged(self.dtype, causal.context, size) if causal.body.fused else causal.body
        bias = causal.head.bias
        self.head = prepacked(causal.head.weight.to(self.dtype), None if bias is None else bias.to(self.dtype), size)
        self.keys_values: dict[nn.Module, Pair] = {}  # [B * Hkv, columns, D] each
        self.key_heads: dict[nn.Module, int] = {}
        self.columns = 0  # written so far
        self.begin = torch.zeros(0, dtype=torch.long, device=causal.device)  # [B] each slot's first column
        self.position = torch.zeros_like(self.begin)  # [B] of the next token
        self.room = 0  # columns allocated
        self.hidden: dict[int, Tensor] = {}  # [B * Hkv, 1, columns] for each Hkv: 0, or -inf before a slot begins
        self.shared_prompts: list[Prefilled | None] = []  # [B] the prompt that a slot shares, None where it has a copy
        self.roots = Roots(())
        self.windowed = False

    @torch.inference_mode()
    def prefill(self, prompts: Sequence[Prompt]) -> list[Prefilled]:
        """Prefills the prompts, all in one row."""
        forest = plant([Group(prompt, ()) for prompt in prompts], Denominators(1, 1, 0, 1)).to(self.causal.device)
        layout = ForestLayout(forest, keep=True)
        with self.causal.autocast():
            ends = torch.tensor([tree.start + tree.root - 1 for tree in forest.trees], device=self.causal.device)
            hidden = self.run(forest.tokens_N[None], forest.position_N[None], layout, rows=ends)
            logits = self.causal.logits(hidden[0], self.head)
        self.windowed = any(form.window is not None for form in layout.forms)
        kept = {layer: (k.to(self.dtype), v.to(self.dtype)) for layer, (k, v) in (layout.kept or {}).items()}
        self.key_heads = {layer: k.shape[0] for layer, (k, _) in kept.items()}
        rows = [slice(tree.start, tree.start + tree.root) for tree in forest.trees]
        return [
            Prefilled(logits[i], {layer: (k[:, row], v[:, row]) for layer, (k, v) in kept.items()}, row.stop - row.start)
            for i, row in enumerate(rows)
        ]

    def arrange(self, rows: Sequence[int], prompts: Sequence[Prefilled] = ()) -> None:
        """Keeps these slots, in this order, and appends a new slot for each prompt."""
        index = torch.tensor(rows, dtype=torch.long, device=self.begin.device)
        shared = [not self.windowed and prompt.length >= SHARED for prompt in prompts]
        own = [0 if share else prompt.length for share, prompt in zip(shared, prompts, strict=True)]
        spans = self.columns - self.begin[index]  # columns that each slot has of its own
        span = int(spans.max()) if rows else 0
        columns = max([span, *own])
        copied = [None if share else prompt for share, prompt in zip(shared, prompts, strict=True)]
        self.room = -(-(columns + 1) // GROW) * GROW
        for layer, pair in (self.keys_values or (prompts[0].kept if prompts else {})).items():
            self.keys_values[layer] = self._moved(layer, pair, index, span, columns, copied)
        lengths = torch.tensor([prompt.length for prompt in prompts], dtype=torch.long, device=index.device)
        self.begin = columns - torch.cat([spans, torch.tensor(own, dtype=torch.long, device=index.device)])
        self.position = torch.cat([self.position[index], lengths])
        self.shared_prompts = [self.shared_prompts[row] for row in rows] + [
            p if share else None for share, p in zip(shared, prompts, strict=True)
        ]
        self.roots = Roots(self.shared_prompts)
        self.columns = columns
        before = torch.arange(self.room, device=index.device) < self.begin[:, None]
        hidden = torch.zeros(before.shape, device=index.device, dtype=self.dtype).masked_fill_(before, float("-inf"))
        self.hidden = {heads: hidden.repeat_interleave(heads, 0).unsqueeze(1) for heads in set(self.key_heads.values())}

    def _moved(self, layer: nn.Module, pair: Pair, index: Tensor, span: int, columns: int, copied: Sequence[Prefilled | None]) -> Pair:
        """A layer's cache with room for `columns`: the last `span` columns of the slots that stay, then the copied prompts."""
        moved = []
        for which, tensor in enumerate(pair):
            new = tensor.new_empty(len(index) + len(copied), self.key_heads[layer], self.room, tensor.shape[-1])
            new[: len(index), :, : columns - span] = 0  # masked entries must be finite
            new[len(index) :, :, :columns] = 0
            if span:
                new[: len(index), :, columns - span : columns] = tensor.unflatten(0, (-1, new.shape[1]))[
                    index, :, self.columns - span : self.columns
                ]
            end = len(index)
            for prompt, slots in groupby(copied):
                begin, end = end, end + len(list(slots))
                if prompt is not None:
                    new[begin:end, :, columns - prompt.length : columns] = prompt.kept[layer][which]
            moved.append(new.flatten(0, 1))
        return moved[0], moved[1]

    @torch.inference_mode()
    def step(self, token_B: Tensor) -> Tensor:
        """Appends one token [B] to each slot -> logits [B, V] of the next."""
        if self.columns == self.room:
            self.arrange(range(len(self.shared_prompts)))
        with self.causal.autocast():
            if isinstance(self.run, FusedDecoder):
                hidden = self.run.step(token_B, self.position, self.attend_step)
            else:
                hidden = self.run(token_B[:, None], self.position[:, None], self)[:, 0]
            logits = self.causal.logits(hidden, self.head)
        self.columns += 1
        self.position += 1
        return logits

    def attend(self, layer: nn.Module, query: Tensor, key: Tensor, value: Tensor, form: Form) -> Tensor:
        """query [B, H, 1, D], key and value [B, Hkv, 1, D] -> [B, H, 1, D]."""
        return self.attend_step(layer, query.squeeze(2), key.squeeze(2), value.squeeze(2), form).view(query.shape)

    def attend_step(self, layer: nn.Module, query: Tensor, key: Tensor, value: Tensor, form: Form) -> Tensor:
        """query [B, H, D], key and value [B, Hkv, D] -> [B, H * D]. With few slots the number of operations is what costs time."""
        keys, values = self.keys_values[layer]
        (B, kv, D), now = key.shape, self.columns
        keys[:, now], values[:, now] = key.reshape(B * kv, D), value.reshape(B * kv, D)
        first = 0 if form.window is None else max(0, now + 1 - form.window)
        q, k, v = query.to(self.dtype).reshape(B * kv, -1, D), keys[:, first : now + 1], values[:, first : now + 1]
        hidden = self.hidden[kv][:, :, first : now + 1]
        if self.roots.of or form.softcap is not None:
            return self._attend_shared(layer, q, k, v, hidden, form).view(B, -1)
        return torch.bmm(torch.baddbmm(hidden, q, k.transpose(1, 2), alpha=form.scaling).softmax(-1), v).view(B, -1)

    def _attend_shared(self, layer: nn.Module, q: Tensor, k: Tensor, v: Tensor, hidden: Tensor, form: Form) -> Tensor:
        """The same with shared prompts and capped scores. q [B * Hkv, repeats, D] -> same shape."""
        q = q * form.scaling
        seen, mass = weighed(capped(torch.bmm(q, k.transpose(1, 2)).float(), form.softcap).add_(hidden), v)
        if not self.roots.of:
            return seen
        more = self.roots.attend(layer, q.unflatten(0, (len(self.shared_prompts), -1)), form.softcap)
        return joined(seen, mass, *(x.flatten(0, 1) for x in more))[0]

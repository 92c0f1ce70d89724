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
from ikusei.models.flash import joined
from ikusei.models.fused_decoder import Stack
from ikusei.models.linear import product
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

    def __init__(self, roots: Sequence[Prefilled | None]) -> None:
        self.of: list[tuple[Prefilled, slice]] = []
        begin = 0
        for root, members in groupby(roots):
            end = begin + len(list(members))
            if root is not None:
                self.of.append((root, slice(begin, end)))
            begin = end

    def look(self, layer: nn.Module, q: Tensor, softcap: float | None) -> tuple[Tensor, Tensor]:
        """q [B, Hkv, repeats, D], scaled -> what each slot sees of its prompt, as q, and the log-sum-exp [B, Hkv, repeats, 1]."""
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
    """scores [B, n, T] and values [B, T, D] -> softmax(scores) values [B, n, D] and the log-sum-exps [B, n, 1]. The scores are used up."""
    largest = scores.amax(-1, keepdim=True)
    mass = scores.sub_(largest).exp_().sum(-1, keepdim=True)
    return torch.bmm(scores.to(values.dtype), values).div_(mass), mass.log_().add_(largest)


class Slots:
    """A `Layout`: its `attend` adds a column, then looks. Weights are taken as they are when it is made."""

    def __init__(self, causal: CausalModel, size: int) -> None:
        """`size` is the most slots that there will be."""
        self.causal = causal
        self.dtype = torch.bfloat16 if causal.precision == "bf16" else torch.float32
        self.run = causal.body.stack.merged(self.dtype, causal.context, size) if causal.body.stack else causal.body
        bias = causal.head.bias
        self.head = product(causal.head.weight.to(self.dtype), None if bias is None else bias.to(self.dtype), size)
        self.cache: dict[nn.Module, Pair] = {}  # [B * Hkv, columns, D] each
        self.key_heads: dict[nn.Module, int] = {}
        self.columns = 0  # written so far
        self.begin = torch.zeros(0, dtype=torch.long, device=causal.device)  # [B] each slot's first column
        self.position = torch.zeros_like(self.begin)  # [B] of the next token
        self.room = 0  # columns that there are
        self.hidden: dict[int, Tensor] = {}  # [B * Hkv, 1, columns] for each Hkv: 0, or -inf before a slot begins
        self.looked_at: list[Prefilled | None] = []  # [B] the prompt that a slot looks at where it is
        self.roots = Roots(())
        self.windowed = False

    @torch.inference_mode()
    def prefill(self, prompts: Sequence[Prompt]) -> list[Prefilled]:
        """The prompts through the model, all in one row."""
        forest = plant([Group(prompt, ()) for prompt in prompts], Totals(1, 1, 0, 1)).to(self.causal.device)
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
        """Only these slots go on, in this order; after them a new slot for each prompt, which must not come before theirs."""
        index = torch.tensor(rows, dtype=torch.long, device=self.begin.device)
        shared = [not self.windowed and prompt.length >= SHARED for prompt in prompts]
        own = [0 if share else prompt.length for share, prompt in zip(shared, prompts, strict=True)]
        spans = self.columns - self.begin[index]  # columns that each slot has of its own
        span = int(spans.max()) if rows else 0
        columns = max([span, *own])
        copied = [None if share else prompt for share, prompt in zip(shared, prompts, strict=True)]
        self.room = -(-(columns + 1) // GROW) * GROW
        for layer, pair in (self.cache or (prompts[0].kept if prompts else {})).items():
            self.cache[layer] = self._moved(layer, pair, index, span, columns, copied)
        lengths = torch.tensor([prompt.length for prompt in prompts], dtype=torch.long, device=index.device)
        self.begin = columns - torch.cat([spans, torch.tensor(own, dtype=torch.long, device=index.device)])
        self.position = torch.cat([self.position[index], lengths])
        self.looked_at = [self.looked_at[row] for row in rows] + [p if share else None for share, p in zip(shared, prompts, strict=True)]
        self.roots = Roots(self.looked_at)
        self.columns = columns
        before = torch.arange(self.room, device=index.device) < self.begin[:, None]
        hidden = torch.zeros(before.shape, device=index.device, dtype=self.dtype).masked_fill_(before, float("-inf"))
        self.hidden = {heads: hidden.repeat_interleave(heads, 0).unsqueeze(1) for heads in set(self.key_heads.values())}

    def _moved(self, layer: nn.Module, pair: Pair, index: Tensor, span: int, columns: int, copied: Sequence[Prefilled | None]) -> Pair:
        """Room for `columns` and more: the last `span` columns of the slots that go on, then the prompts that are copied."""
        moved = []
        for which, tensor in enumerate(pair):
            new = tensor.new_empty(len(index) + len(copied), self.key_heads[layer], self.room, tensor.shape[-1])
            new[: len(index), :, : columns - span] = 0  # what is hidden must be numbers
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
        """One token into each slot -> logits [B, V] of the next."""
        if self.columns == self.room:
            self.arrange(range(len(self.looked_at)))
        with self.causal.autocast():
            if isinstance(self.run, Stack):
                hidden = self.run.step(token_B, self.position, self.look)
            else:
                hidden = self.run(token_B[:, None], self.position[:, None], self)[:, 0]
            logits = self.causal.logits(hidden, self.head)
        self.columns += 1
        self.position += 1
        return logits

    def attend(self, layer: nn.Module, query: Tensor, key: Tensor, value: Tensor, form: Form) -> Tensor:
        """query [B, H, 1, D], key and value [B, Hkv, 1, D] -> [B, H, 1, D]."""
        return self.look(layer, query.squeeze(2), key.squeeze(2), value.squeeze(2), form).view(query.shape)

    def look(self, layer: nn.Module, query: Tensor, key: Tensor, value: Tensor, form: Form) -> Tensor:
        """query [B, H, D], key and value [B, Hkv, D] -> what each slot sees, [B, H * D]. In few slots each operation here costs more than
        what it computes."""
        keys, values = self.cache[layer]
        (B, kv, D), now = key.shape, self.columns
        keys[:, now], values[:, now] = key.reshape(B * kv, D), value.reshape(B * kv, D)
        first = 0 if form.window is None else max(0, now + 1 - form.window)
        q, k, v = query.to(self.dtype).reshape(B * kv, -1, D), keys[:, first : now + 1], values[:, first : now + 1]
        hidden = self.hidden[kv][:, :, first : now + 1]
        if self.roots.of or form.softcap is not None:
            return self._look_beyond(layer, q, k, v, hidden, form).view(B, -1)
        return torch.bmm(torch.baddbmm(hidden, q, k.transpose(1, 2), alpha=form.scaling).softmax(-1), v).view(B, -1)

    def _look_beyond(self, layer: nn.Module, q: Tensor, k: Tensor, v: Tensor, hidden: Tensor, form: Form) -> Tensor:
        """The same with prompts that lie elsewhere, and with capped scores. q [B * Hkv, repeats, D] -> as q."""
        q = q * form.scaling
        seen, mass = weighed(capped(torch.bmm(q, k.transpose(1, 2)).float(), form.softcap).add_(hidden), v)
        if not self.roots.of:
            return seen
        more = self.roots.look(layer, q.unflatten(0, (len(self.looked_at), -1)), form.softcap)
        return joined(seen, mass, *(x.flatten(0, 1) for x in more))[0]

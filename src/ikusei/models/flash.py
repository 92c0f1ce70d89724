"""The forest's attention on a CPU: torch's flash kernel over runs of the row, nothing copied that need not be, nothing padded that is long.

    a root, or a prompt with its only leaf      causal, where it lies
    the leaves of a long root                   each causal by itself, and all of them together against the root, one product for it;
                                                the two are joined by their log-sum-exps, as ring attention does (arXiv:2310.01889)
    the leaves of a short root                  a batch over [copy of the root | leaf], with a mask
    what is short                               gathered into a batch of like lengths

One function over the whole row, with a backward of its own: it keeps queries, keys, values, outputs and log-sum-exps and gathers again,
and adds up gradients in place. Left to autograd, each gathering would leave a copy and a row of zeros behind.
Layers with windows or capped scores go through `attention.py` instead.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ikusei.forest import Tree

LONG = 64  # tokens: a run so long is worth a call of its own
CONTIGUOUS = torch.contiguous_format  # whatever the strides of what came in: results are written through views

forward_kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
backward_kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


@dataclass(frozen=True)
class Run:
    """Rows that follow one another, where they lie."""

    rows: slice
    nobody: None = None

    def take(self, x_N: Tensor) -> Tensor:
        """[N, heads, D] -> [1, heads, T, D], a view."""
        return x_N[self.rows].transpose(0, 1).unsqueeze(0)

    def put(self, total: Tensor, x: Tensor) -> None:
        """total [N, heads, D], at these rows, becomes x [1, heads, T, D]."""
        total[self.rows] = x[0].transpose(0, 1)

    def add(self, total: Tensor, x: Tensor) -> None:
        total[self.rows] += x[0].transpose(0, 1)


class Batch:
    """Runs of like lengths, gathered; padded on the right."""

    def __init__(self, rows: Tensor) -> None:
        """[B, T], -1 where padded."""
        self.rows, self.shape = rows, rows.shape
        self.flat = rows.clamp(min=0).flatten()
        self.real = (rows.flatten() >= 0).nonzero().squeeze(1)  # of the batch
        self.their = self.flat[self.real]  # rows of N
        self.whole = self.real.numel() == self.flat.numel()
        self.nobody = None if self.whole else (rows < 0)[:, None, :]

    def take(self, x_N: Tensor) -> Tensor:
        """[N, heads, D] -> [B, heads, T, D]; padding reads row 0."""
        return x_N.flatten(1).index_select(0, self.flat).view(*self.shape, *x_N.shape[1:]).transpose(1, 2)

    def put(self, total: Tensor, x: Tensor) -> None:
        """total [N, heads, D], at these rows, becomes x [B, heads, T, D]."""
        total.view(len(total), -1).index_copy_(0, self.their, self._real(x))

    def add(self, total: Tensor, x: Tensor) -> None:
        total.view(len(total), -1).index_add_(0, self.their, self._real(x))

    def _real(self, x: Tensor) -> Tensor:
        """[B, heads, T, D] -> what is not padding, [n, heads * D]."""
        flat = x.transpose(1, 2).reshape(self.flat.numel(), -1)  # two-dimensional: torch selects from other shapes row by row
        return flat if self.whole else flat.index_select(0, self.real)


@dataclass(frozen=True)
class AttentionCall:
    """Queries that look at keys: at those up to themselves, at all of them, or where `mask` [B, 1, Tq, Tk] is 0 and not -inf."""

    query: Run | Batch
    key: Run | Batch
    looks: Literal["back", "at all", "by mask"]
    mask: Tensor | None = None


def attention_calls(trees: Sequence[Tree]) -> list[AttentionCall]:
    """A call that looks at a root comes after those in which its leaves look at themselves."""
    runs: list[range] = []
    to_roots: list[AttentionCall] = []
    copied: dict[tuple[int, int], list[tuple[range, range]]] = defaultdict(list)
    for tree in trees:
        root, end = range(tree.start, tree.start + tree.root), tree.start + tree.size
        if len(tree.leaves) == 1:
            runs.append(range(tree.start, end))
            continue
        runs.append(root)
        begin = root.stop
        for length in tree.leaves:
            leaf = range(begin, begin + length)
            begin += length
            if tree.root >= LONG:
                runs.append(leaf)
            else:
                copied[length.bit_length(), tree.root.bit_length()].append((root, leaf))
        if tree.root >= LONG and tree.leaves:
            to_roots.append(AttentionCall(Run(slice(root.stop, end)), Run(slice(root.start, root.stop)), "at all"))
    return [*_backward_looking(runs), *map(_with_copies, copied.values()), *to_roots]


def _backward_looking(runs: Sequence[range]) -> list[AttentionCall]:
    """Each long run by itself; the short ones in batches of like lengths, padded at the end, where nobody looks."""
    short: dict[int, list[range]] = defaultdict(list)
    calls = []
    for run in runs:
        if len(run) >= LONG:
            rows = Run(slice(run.start, run.stop))
            calls.append(AttentionCall(rows, rows, "back"))
        elif run:
            short[len(run).bit_length()].append(run)
    batches = [Batch(padded(batch)) for batch in short.values()]
    return calls + [AttentionCall(rows, rows, "back") for rows in batches]


def _with_copies(pairs: Sequence[tuple[range, range]]) -> AttentionCall:
    roots, leaves = (padded(runs) for runs in zip(*pairs, strict=True))
    T = leaves.shape[1]
    own = torch.ones(T, T, dtype=torch.bool).tril() & (leaves >= 0)[:, None, :]
    own |= torch.eye(T, dtype=torch.bool)  # a padded query looks at itself, so that its softmax is a number
    seen = torch.cat([(roots >= 0)[:, None, :].expand(-1, T, -1), own], 2)
    mask = torch.zeros(seen.shape).masked_fill_(~seen, float("-inf"))
    return AttentionCall(Batch(leaves), Batch(torch.cat([roots, leaves], 1)), "by mask", mask.unsqueeze(1))


def padded(runs: Sequence[range]) -> Tensor:
    """[B, T], filled up with -1 on the right."""
    rows = torch.full((len(runs), max(map(len, runs))), -1, dtype=torch.long)
    for i, run in enumerate(runs):
        rows[i, : len(run)] = torch.arange(run.start, run.stop)
    return rows


def flash_forest(query: Tensor, key: Tensor, value: Tensor, calls: Sequence[AttentionCall], scaling: float) -> Tensor:
    """query [N, H, D], key and value [N, Hkv, D] -> [N, H, D]."""
    return _FlashForest.apply(query, key, value, calls, scaling)  # pyright: ignore[reportReturnType]


class _FlashForest(torch.autograd.Function):
    """Each call by itself; those that see a root are joined to what they saw of themselves."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, calls: Sequence[AttentionCall], scaling: float) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        out, lse = torch.empty_like(query, memory_format=CONTIGUOUS), torch.empty(*query.shape[:2], 1)
        for call in calls:
            q, k, v = _taken(call, query, key, value)
            seen, mass = forward_kernel(q, k, v, 0.0, call.looks == "back", attn_mask=_mask(call, q), scale=scaling)
            seen, mass = _unfolded(seen, query), _unfolded(mass.unsqueeze(-1), query)
            if call.looks == "at all":  # these queries saw themselves before
                seen, mass = joined(call.query.take(out), call.query.take(lse), seen, mass)
            call.query.put(out, seen)
            call.query.put(lse, mass)
        ctx.save_for_backward(query, key, value, out, lse)
        ctx.calls, ctx.scaling = calls, scaling
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        query, key, value, out, lse = ctx.saved_tensors
        grad = grad.contiguous()
        grads = [torch.zeros_like(x, memory_format=CONTIGUOUS) for x in (query, key, value)]
        for call in ctx.calls:
            q, k, v = _taken(call, query, key, value)
            o, g, mass = (_folded(call, x, key) for x in (out, grad, lse))
            if call.query.nobody is not None:  # what is padded gets no weight and gives no gradient
                nobody = call.query.nobody.repeat(1, 1, g.shape[2] // call.query.nobody.shape[2]).unsqueeze(-1)
                g, mass = g.masked_fill(nobody, 0.0), mass.masked_fill(nobody, float("inf"))
            back = call.looks == "back"
            dq, dk, dv = backward_kernel(g, q, k, v, o, mass.squeeze(-1), 0.0, back, attn_mask=_mask(call, q), scale=ctx.scaling)
            call.query.add(grads[0], _unfolded(dq, query))
            call.key.add(grads[1], _summed(dk, key))
            call.key.add(grads[2], _summed(dv, key))
        return *grads, None, None


def _taken(call: AttentionCall, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[B, heads, T, D] each, with as many heads of keys as of queries."""
    k, v = call.key.take(key), call.key.take(value)
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1 and call.looks == "back":
        k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
    return _folded(call, query, key), k, v


def _folded(call: AttentionCall, x_N: Tensor, key: Tensor) -> Tensor:
    """What belongs to queries, [N, H, D] -> [B, H, T, D]; or [B, Hkv, H / Hkv * T, D], where those that share a head of keys follow one
    another as if they were more rows, so that no keys are copied. The kernel's own "up to itself" knows no such rows."""
    x = call.query.take(x_N)
    return x if call.looks == "back" or x.shape[1] == key.shape[1] else x.unflatten(1, (key.shape[1], -1)).flatten(2, 3)


def _unfolded(x: Tensor, query: Tensor) -> Tensor:
    """The way back: [B, H, T, D]."""
    repeats = query.shape[1] // x.shape[1]
    return x if repeats == 1 else x.unflatten(2, (repeats, -1)).flatten(1, 2)


def _summed(grad: Tensor, key: Tensor) -> Tensor:
    """The gradient of keys or values, [B, Hkv, T, D]: copies add up."""
    return grad if grad.shape[1] == key.shape[1] else grad.unflatten(1, (key.shape[1], -1)).sum(2)


def _mask(call: AttentionCall, q: Tensor) -> Tensor | None:
    return None if call.mask is None else call.mask.to(q.dtype).repeat(1, 1, q.shape[2] // call.mask.shape[2], 1)


def joined(seen: Tensor, mass: Tensor, more: Tensor, more_mass: Tensor) -> tuple[Tensor, Tensor]:
    """One softmax over two sets of keys, from the outputs and the log-sum-exps of each."""
    both = torch.logaddexp(mass, more_mass)
    joined = seen * (mass - both).exp_() + more * (more_mass - both).exp_()
    return joined.to(seen.dtype), both

"""Log-probs and entropies of target tokens from hidden states: head, softmax and backward in one function.

    z = cap(scale * (h W' + b)) / T      logp = z[target] - lse(z)      entropy = lse(z) - sum p z

Logits [M, V] never exist as a whole: rows and vocabulary are processed in blocks with running sums (online softmax, arXiv:1805.02867), and
the backward recomputes a block's logits unless there were few enough to keep. Blocks over the vocabulary, not over rows alone, let each
block write its own rows of W's gradient, so a large gradient is written once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK_LOGITS = 1 << 20  # logits that exist at one time: 4 MiB in fp32, which a CPU's cache holds
KEPT_LOGITS = 1 << 24  # up to so many are kept for the backward: 64 MiB
BLOCK_ROWS = 1024


@dataclass(frozen=True)
class Head:
    """The head: weight [V, d], bias [V] or None, then times `scale`, then capped by tanh at `cap`."""

    weight: Tensor
    bias: Tensor | None = None
    scale: float = 1.0
    cap: float | None = None


def token_logprobs(head: Head, hidden_M: Tensor, target_M: Tensor, temperature_M: Tensor) -> tuple[Tensor, Tensor]:
    """hidden [M, d] -> log-prob of each target and entropy, [M] each, in nats and fp32, of the distribution at each row's temperature."""
    gain_M = head.scale / (temperature_M if head.cap is None else torch.full_like(temperature_M, head.cap))
    top_M = None if head.cap is None else head.cap / temperature_M
    return _TokenLogprobs.apply(hidden_M * gain_M[:, None], head.weight, head.bias, gain_M, top_M, target_M)  # pyright: ignore[reportReturnType]


class _TokenLogprobs(torch.autograd.Function):
    """Takes hidden states already multiplied by `gain_M`. With a cap, z = top * tanh(...)."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, hidden_M: Tensor, weight: Tensor, bias: Tensor | None, gain_M: Tensor, top_M: Tensor | None, target_M: Tensor
    ) -> tuple[Tensor, Tensor]:
        device = hidden_M.device.type
        hidden_M = hidden_M.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else hidden_M
        of = _Logits(hidden_M, weight, bias, gain_M, top_M)
        sums = _Sums.start(target_M)
        ctx.kept = {} if hidden_M.shape[0] * weight.shape[0] <= KEPT_LOGITS and any(ctx.needs_input_grad) else None
        for rows, words in _blocks(hidden_M.shape[0], weight.shape[0]):
            z = of.block(rows, words)
            sums.add(rows, words, z)
            if ctx.kept is not None:
                ctx.kept[rows.start, words.start] = z
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(hidden_M, weight, bias, gain_M, top_M, target_M, sums.lse_M, sums.entropy_M)
        return sums.logp_M, sums.entropy_M

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, logp_grad_M: Tensor | None, entropy_grad_M: Tensor | None) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        hidden_M, weight, bias, gain_M, top_M, target_M, lse_M, entropy_M = ctx.saved_tensors
        of = _Logits(hidden_M, weight, bias, gain_M, top_M)
        logp_grad_M = torch.zeros_like(lse_M) if logp_grad_M is None else logp_grad_M
        grad_hidden = torch.zeros(hidden_M.shape, dtype=torch.float32, device=hidden_M.device)
        grad_weight = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device) if ctx.needs_input_grad[1] else None
        grad_bias = torch.zeros_like(bias) if ctx.needs_input_grad[2] else None
        for rows, words in _blocks(hidden_M.shape[0], weight.shape[0]):
            z = of.block(rows, words) if ctx.kept is None else ctx.kept.pop((rows.start, words.start))
            slope = None if top_M is None else top_M[rows, None] - z.square() / top_M[rows, None]
            z -= lse_M[rows, None]
            pull = -logp_grad_M[rows, None]  # the factor of each token's probability in the gradient
            if entropy_grad_M is not None:
                pull = pull - entropy_grad_M[rows, None] * (z + entropy_M[rows, None])
            z.exp_().mul_(pull)
            _add_at(z, target_M[rows] - words.start, logp_grad_M[rows])
            z = (z if slope is None else z.mul_(slope)).to(hidden_M.dtype)
            grad_hidden[rows] += z @ weight[words].to(z.dtype)
            if grad_weight is not None:
                grad_weight[words] += z.T @ hidden_M[rows]
            if grad_bias is not None:
                grad_bias[words] += gain_M[rows] @ z.float()
        return grad_hidden, grad_weight, grad_bias, None, None, None


@dataclass(frozen=True)
class _Logits:
    hidden_M: Tensor
    weight: Tensor
    bias: Tensor | None
    gain_M: Tensor
    top_M: Tensor | None

    def block(self, rows: slice, words: slice) -> Tensor:
        """z [rows, words] in fp32; the product is in the precision of the hidden states."""
        z = (self.hidden_M[rows] @ self.weight[words].to(self.hidden_M.dtype).T).float()
        if self.bias is not None:
            z.addcmul_(self.gain_M[rows, None], self.bias[words])
        return z if self.top_M is None else z.tanh_().mul_(self.top_M[rows, None])


@dataclass(frozen=True)
class _Sums:
    """The running sums of each row's softmax: the largest logit, sum e^(z - largest), sum z e^(z - largest), the target's logit."""

    target_M: Tensor
    largest_M: Tensor
    mass_M: Tensor
    mean_M: Tensor
    own_M: Tensor

    @classmethod
    def start(cls, target_M: Tensor) -> _Sums:
        zeros = torch.zeros(target_M.shape, dtype=torch.float32, device=target_M.device)
        return cls(target_M, zeros - float("inf"), zeros, zeros.clone(), zeros.clone())

    def add(self, rows: slice, words: slice, z: Tensor) -> None:
        largest = torch.maximum(self.largest_M[rows], z.amax(-1))
        shrunk = (self.largest_M[rows] - largest).exp()
        e = (z - largest[:, None]).exp_()
        self.mass_M[rows] = self.mass_M[rows] * shrunk + e.sum(-1)
        self.mean_M[rows] = self.mean_M[rows] * shrunk + e.mul_(z).sum(-1)
        self.largest_M[rows] = largest
        at = self.target_M[rows] - words.start
        inside = (at >= 0) & (at < z.shape[1])
        self.own_M[rows] = torch.where(inside, z.gather(1, at.clamp(0, z.shape[1] - 1)[:, None]).squeeze(1), self.own_M[rows])

    @property
    def lse_M(self) -> Tensor:
        return self.largest_M + self.mass_M.log()

    @property
    def logp_M(self) -> Tensor:
        return self.own_M - self.lse_M

    @property
    def entropy_M(self) -> Tensor:
        return self.lse_M - self.mean_M / self.mass_M


def _add_at(z: Tensor, at: Tensor, x: Tensor) -> None:
    """z[i, at[i]] += x[i], where that is inside."""
    inside = (at >= 0) & (at < z.shape[1])
    z.scatter_add_(1, at.clamp(0, z.shape[1] - 1)[:, None], (x * inside)[:, None])


def _blocks(num_rows: int, vocabulary_size: int) -> Iterator[tuple[slice, slice]]:
    for row in range(0, num_rows, BLOCK_ROWS):
        rows = slice(row, min(row + BLOCK_ROWS, num_rows))
        size = max(1, BLOCK_LOGITS // (rows.stop - rows.start))
        for word in range(0, vocabulary_size, size):
            yield rows, slice(word, min(word + size, vocabulary_size))

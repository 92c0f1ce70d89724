"""From logits to tokens: one uniform number a token, by the inverse of the cumulative distribution.

The number belongs to (seed, prompt id, sample index, position) alone, so a response does not depend on the slot that wrote it, on its
neighbours or on the order of work. The log-prob is that of the distribution actually drawn from, after temperature and truncation.
Gumbel noise would need one random number for each word of the vocabulary: at 151,936 words and 64 rows ten times slower.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

from ikusei.types import Sampling

WORDS = 512  # in a block
BELOW_ONE = 1 - 2**-23  # so that a uniform times the whole mass stays below it in fp32


def response_seed(seed: int, prompt_id: str, index: int) -> int:
    """The 63-bit seed of one response."""
    digest = hashlib.blake2b(f"{seed}/{prompt_id}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def uniforms(seed: int, count: int) -> Tensor:
    """[count] numbers in [0, 1), fp32. Number t is the same however many are asked for."""
    return torch.from_numpy(np.random.Generator(np.random.Philox(key=seed)).random(count).astype(np.float32))


def draw(logits: Tensor, uniform: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """logits [B, V] in fp32 and uniform [B] -> tokens [B] and their log-probs [B]."""
    p = (logits if sampling.temperature == 1 else logits / sampling.temperature).softmax(-1)
    if sampling.truncated:
        p = truncate(p, sampling)
        p = p / p.sum(-1, keepdim=True)
    token = by_inverse(p, uniform)
    return token, p.gather(1, token[:, None]).log().squeeze(1)


def by_inverse(p: Tensor, uniform: Tensor) -> Tensor:
    """The first word at which the mass of p [B, V] summed up exceeds uniform [B] of the whole. A large vocabulary is summed in blocks, and
    word by word only in the block that holds it: a running sum over everything is as slow as all the rest together."""
    num, V = p.shape[1] // WORDS, p.shape[1]
    if num < 8:
        return _first_above(p, uniform.clamp(max=BELOW_ONE)[:, None] * p.sum(-1, keepdim=True)).squeeze(1)
    blocks = torch.cat([p[:, : num * WORDS].unflatten(1, (num, WORDS)).sum(-1), p[:, num * WORDS :].sum(-1, keepdim=True)], 1)
    target = uniform.clamp(max=BELOW_ONE)[:, None] * blocks.sum(-1, keepdim=True)
    block = _first_above(blocks, target)
    target = target - (blocks.cumsum(-1) - blocks).gather(1, block)
    word = block * WORDS + torch.arange(WORDS, device=p.device)
    inside = p.gather(1, word.clamp(max=V - 1)).masked_fill(word >= V, 0.0)
    return (block * WORDS + _first_above(inside, target)).squeeze(1)


def _first_above(p: Tensor, target: Tensor) -> Tensor:
    """[B, n] and [B, 1] -> [B, 1] where the running sum first exceeds the target, which rounding may have put outside of it."""
    mass = p.cumsum(-1)
    return torch.searchsorted(mass, torch.minimum(target.clamp(min=0), mass[:, -1:] * BELOW_ONE), right=True).clamp(max=p.shape[1] - 1)


def truncate(p: Tensor, sampling: Sampling) -> Tensor:
    """Probabilities [B, V] with 0 outside the top-k words, then outside the smallest set that holds top-p of what is left, then below min-p
    times the likeliest word. Not normalised."""
    if 0 < sampling.top_k < p.shape[-1]:
        likeliest = p.topk(sampling.top_k, -1)
        p = torch.zeros_like(p).scatter(1, likeliest.indices, likeliest.values)
    if sampling.top_p < 1:
        sorted_p, order = p.sort(-1, descending=True)
        before = sorted_p.cumsum(-1) - sorted_p  # the mass of likelier words: a word stays while that is below top-p
        cut = before >= sampling.top_p * p.sum(-1, keepdim=True)
        p = torch.zeros_like(p).scatter(1, order, sorted_p.masked_fill(cut, 0.0))
    if sampling.min_p > 0:
        p = p.masked_fill(p < sampling.min_p * p.max(-1, keepdim=True).values, 0.0)
    return p

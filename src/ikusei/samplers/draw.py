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
    logp = (logits / sampling.temperature).log_softmax(-1)
    if sampling.truncated:
        logp = truncate(logp, sampling).log_softmax(-1)
    mass = logp.exp().cumsum(-1)
    target = uniform.clamp(max=BELOW_ONE)[:, None] * mass[:, -1:]
    token = torch.searchsorted(mass, target, right=True).clamp(max=logits.shape[-1] - 1)
    return token.squeeze(1), logp.gather(1, token).squeeze(1)


def truncate(logp: Tensor, sampling: Sampling) -> Tensor:
    """-inf outside the top-k words, then outside the smallest set of mass top-p, then below min-p times the likeliest word."""
    if 0 < sampling.top_k < logp.shape[-1]:
        kept = torch.zeros_like(logp, dtype=torch.bool).scatter(1, logp.topk(sampling.top_k, -1).indices, True)
        logp = logp.masked_fill(~kept, float("-inf"))
    if sampling.top_p < 1:
        p, order = logp.softmax(-1).sort(-1, descending=True)
        before = p.cumsum(-1) - p  # the mass of likelier words: a word stays while that is below top-p
        cut = torch.zeros_like(p, dtype=torch.bool).scatter(1, order, before >= sampling.top_p)
        logp = logp.masked_fill(cut, float("-inf"))
    if sampling.min_p > 0:
        logp = logp.masked_fill(logp < logp.max(-1, keepdim=True).values + np.log(sampling.min_p), float("-inf"))
    return logp

"""Decoding for models in the padded layout: all responses of one prompt, token by token, with transformers' own cache.

All rows have the same length, so nothing is padded. Not every model's cache works when used from outside (its name differs, or the model
has none). It is therefore tested once on a short row; where it does not reproduce the hidden states of the whole row, the whole prefix is
recomputed for each token, which is slow and correct.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ikusei.models.causal import CausalModel
from ikusei.models.probe import TOLERANCE
from ikusei.samplers.decoding import DecodingBatch

CACHES = ("past_key_values", "cache_params")
LONG, SHORT = 12, 5  # the trial row and its prompt


class Decoder:
    """The rows of one batch, all of one length."""

    def __init__(self, causal: CausalModel, tokens: Tensor) -> None:
        """tokens [B, T]: the prompt, once for each response."""
        self.causal, self.tokens = causal, tokens
        self.cached = cache_is_right(causal)
        self.cache: dict[str, Any] = {}
        self.seen = 0

    def hidden(self) -> Tensor:
        """[B, d] after the last token."""
        if not self.cached:
            return self.causal.body.plain(self.tokens)[:, -1]
        hidden, self.cache = cached_step(self.causal, self.tokens[:, self.seen :], self.cache, self.seen)
        self.seen = self.tokens.shape[1]
        return hidden[:, -1]

    @torch.no_grad()
    def step(self, decoding: DecodingBatch) -> None:
        """Samples one token in each row."""
        with self.causal.autocast():
            token_B = decoding.write(0, self.causal.logits(self.hidden()))
        self.tokens = torch.cat([self.tokens, token_B[:, None]], 1)


def cached_step(causal: CausalModel, tokens: Tensor, cache: dict[str, Any], seen: int) -> tuple[Tensor, dict[str, Any]]:
    """New tokens [B, t] after `seen` earlier ones -> hidden states [B, t, d] and the cache to go on with."""
    position = torch.arange(seen, seen + tokens.shape[1], device=tokens.device)[None]
    where = {"position_ids": position} if causal.takes_positions else {}
    out = causal.model.base_model(input_ids=tokens, use_cache=True, **where, **cache)
    return out.last_hidden_state, {name: out[name] for name in CACHES if name in out}


@torch.no_grad()
def cache_is_right(causal: CausalModel) -> bool:
    """Whether decoding token by token gives the logits of the whole row. Tested once for each model."""
    if causal.cache_is_right is None:
        row = torch.arange(1, LONG + 1, device=causal.device)[None] % causal.vocabulary
        whole = causal.logits(causal.body.plain(row)).log_softmax(-1)
        steps, cache, seen = [], {}, 0
        try:
            for end in (SHORT, *range(SHORT + 1, LONG + 1)):
                hidden, cache = cached_step(causal, row[:, seen:end], cache, seen)
                steps.append(hidden)
                seen = end
            apart = causal.logits(torch.cat(steps, 1)).log_softmax(-1)
            causal.cache_is_right = bool(cache) and float((apart - whole).abs().max()) <= TOLERANCE
        except (TypeError, ValueError, RuntimeError, AttributeError):  # the model refuses in its own words
            causal.cache_is_right = False
    return causal.cache_is_right

"""A transformers causal language model in two halves: the body gives hidden states, the head gives logits of the rows asked for.

The head is never run on rows that nobody scores, and for a large vocabulary in chunks, so that logits [M, vocabulary] never exist as a
whole, forward or backward; what it keeps does not grow with the number of scored tokens beyond the rows' hidden states.
The model's own logit scale (Granite, Cohere) and cap (Gemma 2) are applied from its configuration; `models/probe.py` verifies both halves
against the whole model.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from ikusei.forest import Forest, Outputs
from ikusei.models.body import configured, context_of, hidden, prepare
from ikusei.models.heads import Critic

CHUNK_LOGITS = 1 << 22  # logits that exist at one time: 16 MiB in fp32


class CausalModel:
    """Body and head of one model, and the critic that stands beside it where one is needed. `layout` is "forest" or "padded"."""

    def __init__(self, model: PreTrainedModel, layout: str = "forest", precision: str = "fp32", critic: Critic | None = None) -> None:
        head = model.get_output_embeddings()
        if head is None:
            raise ValueError(f"model {type(model).__name__}: it has no head over a vocabulary; give a causal language model")
        self.model, self.head, self.critic = prepare(model, layout), head, critic
        self.takes_positions = "position_ids" in inspect.signature(model.base_model.forward).parameters
        self.cache_is_right: bool | None = None  # of transformers' own cache: tried when it is first wanted
        self.layout = layout
        self.precision = precision
        self.logit_scale = configured(model, "logit_scale", 1.0) / configured(model, "logits_scaling", 1.0)
        self.logit_cap = configured(model, "final_logit_softcapping")

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def context(self) -> int:
        """How many tokens fit: prompt and response together."""
        return context_of(self.model)

    @property
    def vocabulary(self) -> int:
        return self.head.weight.shape[0]

    def autocast(self) -> torch.autocast:
        """Compute in bf16 where that is the precision; the weights stay in fp32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def body(self, tokens: Tensor, **inputs: Any) -> Tensor:
        """[B, T] -> hidden states [B, T, d]."""
        return self.model.base_model(input_ids=tokens, **inputs).last_hidden_state

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., d] -> logits [..., vocabulary] in fp32, as the whole model gives them."""
        logits = self.head(hidden).float() * self.logit_scale
        return logits if self.logit_cap is None else torch.tanh(logits / self.logit_cap) * self.logit_cap

    def outputs(self, forest: Forest) -> Outputs:
        """Log-probs and entropies of the forest's scored tokens, and the critic's values before them, differentiable."""
        with self.autocast():
            hidden_M = hidden(self.model.base_model, self.layout, forest, "predicts")
            logp_M, entropy_M = self._score(hidden_M, forest.target_M, forest.temperature_R[forest.response_M])
            value_M = None if self.critic is None else self.critic.value(hidden_M, self.layout, forest)
        return Outputs(logp_M, entropy_M, value_M)

    def _score(self, hidden_M: Tensor, target_M: Tensor, temperature_M: Tensor) -> tuple[Tensor, Tensor]:
        chunk = max(1, CHUNK_LOGITS // self.vocabulary)
        if hidden_M.shape[0] <= chunk:
            return self._score_chunk(hidden_M, target_M, temperature_M)
        pieces = zip(hidden_M.split(chunk), target_M.split(chunk), temperature_M.split(chunk), strict=True)
        logps, entropies = zip(*(checkpoint(self._score_chunk, *piece, use_reentrant=False) for piece in pieces), strict=True)
        return torch.cat(logps), torch.cat(entropies)  # pyright: ignore[reportArgumentType]

    def _score_chunk(self, hidden: Tensor, target: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor]:
        """[m, d] -> log-prob of the target and entropy, [m] each."""
        logp = (self.logits(hidden) / temperature[:, None]).log_softmax(-1)
        return logp.gather(1, target[:, None]).squeeze(1), -(logp.exp() * logp).sum(-1)

"""A transformers causal language model as body and head: hidden states, and log-probs of the target tokens.

The head runs on the rows of target tokens only, and in blocks (logprobs.py), so that logits [M, vocabulary] never exist as a whole. The
model's logit scale (Granite, Cohere) and cap (Gemma 2) are applied from its configuration; `models/probe.py` verifies both against the
whole model.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ikusei.forest import Forest, Outputs
from ikusei.models.body import Body, configured, context_of, prepare
from ikusei.models.heads import Critic
from ikusei.models.logprobs import Head, token_logprobs


class CausalModel:
    """Body and head of a model, and its critic where one is needed. `layout` is "forest" or "padded"."""

    def __init__(self, model: PreTrainedModel, layout: str = "forest", precision: str = "fp32", critic: Critic | None = None) -> None:
        head = model.get_output_embeddings()
        if head is None:
            raise ValueError(f"model {type(model).__name__}: it has no head over a vocabulary; give a causal language model")
        self.model, self.head, self.critic = prepare(model, layout), head, critic
        self.body = Body(model.base_model, layout)
        self.takes_positions = "position_ids" in inspect.signature(model.base_model.forward).parameters
        self.cache_is_right: bool | None = None  # of transformers' own cache; tested on first use (lockstep.py)
        self.layout = layout
        self.precision = precision
        self.logit_scale = configured(model, "logit_scale", 1.0) / configured(model, "logits_scaling", 1.0)
        self.logit_cap = configured(model, "final_logit_softcapping")

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def context(self) -> int:
        """The context length in tokens."""
        return context_of(self.model)

    @property
    def vocabulary(self) -> int:
        return self.head.weight.shape[0]

    def autocast(self) -> torch.autocast:
        """bf16 autocast where that is the precision; the weights stay in fp32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def logits(self, hidden: Tensor, head: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """[..., d] -> logits [..., vocabulary] in fp32, scaled and capped. `head` replaces the model's own."""
        logits = (head or self.head)(hidden).float()
        if self.logit_scale != 1:
            logits = logits * self.logit_scale
        return logits if self.logit_cap is None else torch.tanh(logits / self.logit_cap) * self.logit_cap

    def outputs(self, forest: Forest) -> Outputs:
        """Log-probs and entropies of the forest's target tokens, and the critic's values before them; differentiable."""
        head = Head(self.head.weight, self.head.bias, self.logit_scale, self.logit_cap)
        with self.autocast():
            hidden_M = self.body.hidden(forest, "predicts")
            logp_M, entropy_M = token_logprobs(head, hidden_M, forest.target_M, forest.temperature_R[forest.response_M])
            value_M = None if self.critic is None else self.critic.value(hidden_M, forest)
        return Outputs(logp_M, entropy_M, value_M)

"""A transformers causal language model in two halves: the body gives hidden states, the head gives logits of the rows asked for.

The head is never run on rows that nobody scores, and for a large vocabulary in chunks, so that logits [M, vocabulary] never exist as a
whole, forward or backward; what it keeps does not grow with the number of scored tokens beyond the rows' hidden states.
The model's own logit scale (Granite, Cohere) and cap (Gemma 2) are applied from its configuration; `models/probe.py` verifies both halves
against the whole model. Dropout is off from the moment of loading: the model stays in evaluation mode, also while it trains.
"""

from __future__ import annotations

import inspect
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from ikusei.forest import Forest, Outputs
from ikusei.models.attention import NAME, ForestLayout

CHUNK_LOGITS = 1 << 22  # logits that exist at one time: 16 MiB in fp32


class CausalModel:
    """Body and head of one model. `layout` is "forest" or "padded" (one row a response, padded on the right)."""

    def __init__(self, model: PreTrainedModel, layout: str = "forest", precision: str = "fp32") -> None:
        head = model.get_output_embeddings()
        if head is None:
            raise ValueError(f"model {type(model).__name__}: it has no head over a vocabulary; give a causal language model")
        self.model, self.head = model.eval(), head
        self.takes_positions = "position_ids" in inspect.signature(model.base_model.forward).parameters
        self.cache_is_right: bool | None = None  # of transformers' own cache: tried when it is first wanted
        self.layout = layout
        self.precision = precision
        self.model.set_attn_implementation(NAME if layout == "forest" else plain_attention(model))
        self.logit_scale = configured(model, "logit_scale", 1.0) / configured(model, "logits_scaling", 1.0)
        self.logit_cap = configured(model, "final_logit_softcapping")

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def context(self) -> int:
        """How many tokens fit: prompt and response together."""
        return configured(self.model, "max_position_embeddings", 1 << 30)

    @property
    def vocabulary(self) -> int:
        return self.head.weight.shape[0]

    def autocast(self) -> torch.autocast:
        """Compute in bf16 where that is the precision; the weights stay in fp32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def checkpoint_layers(self) -> None:
        """Keep only each layer's input for the backward and compute the rest again. Done here and not by transformers, which would have the
        layers believe that they train, and so turn their dropout on and their cache off."""
        for module in self.model.modules():
            if isinstance(module, GradientCheckpointingLayer):
                module.forward = MethodType(_checkpointed, module)

    def body(self, tokens: Tensor, **inputs: Any) -> Tensor:
        """[B, T] -> hidden states [B, T, d]."""
        return self.model.base_model(input_ids=tokens, **inputs).last_hidden_state

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., d] -> logits [..., vocabulary] in fp32, as the whole model gives them."""
        logits = self.head(hidden).float() * self.logit_scale
        return logits if self.logit_cap is None else torch.tanh(logits / self.logit_cap) * self.logit_cap

    def outputs(self, forest: Forest) -> Outputs:
        """Log-probs and entropies of the forest's scored tokens, differentiable."""
        with self.autocast():
            hidden_M = self.hidden_forest(forest) if self.layout == "forest" else self.hidden_padded(forest)
            return self._score(hidden_M, forest.target_M, forest.temperature_R[forest.response_M])

    def hidden_forest(self, forest: Forest) -> Tensor:
        """[M, d]: one row [1, N] through the body, then the rows that predict a scored token."""
        layout = ForestLayout(forest)
        hidden = self.body(forest.tokens_N[None], position_ids=forest.position_N[None], use_cache=False, layout=layout)
        return hidden[0].index_select(0, forest.predicts_M)

    def hidden_padded(self, forest: Forest) -> Tensor:
        """[M, d]: one row [root | leaf] a response. A causal model never looks right, so padding on the right needs no mask."""
        rows = [torch.cat([forest.tokens_N[root], forest.tokens_N[leaf]]) for root, leaf in root_and_leaf(forest)]
        hidden = self.body(nn.utils.rnn.pad_sequence(rows, batch_first=True), use_cache=False)
        return hidden.flatten(0, 1).index_select(0, forest.response_M * hidden.shape[1] + forest.position_M - 1)

    def _score(self, hidden_M: Tensor, target_M: Tensor, temperature_M: Tensor) -> Outputs:
        chunk = max(1, CHUNK_LOGITS // self.vocabulary)
        if hidden_M.shape[0] <= chunk:
            return Outputs(*self._score_chunk(hidden_M, target_M, temperature_M))
        pieces = zip(hidden_M.split(chunk), target_M.split(chunk), temperature_M.split(chunk), strict=True)
        scored = [checkpoint(self._score_chunk, *piece, use_reentrant=False) for piece in pieces]
        return Outputs(*(torch.cat(column) for column in zip(*scored, strict=True)))  # pyright: ignore[reportArgumentType]

    def _score_chunk(self, hidden: Tensor, target: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor]:
        """[m, d] -> log-prob of the target and entropy, [m] each."""
        logp = (self.logits(hidden) / temperature[:, None]).log_softmax(-1)
        return logp.gather(1, target[:, None]).squeeze(1), -(logp.exp() * logp).sum(-1)


def _checkpointed(layer: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """The layer's own forward; a method bound to the layer, so that a copy of the model has its own."""
    forward = type(layer).forward
    return checkpoint(forward, layer, *args, use_reentrant=False, **kwargs) if torch.is_grad_enabled() else forward(layer, *args, **kwargs)


def configured(model: PreTrainedModel, name: str, default: Any = None) -> Any:
    """What the model's configuration says under a standard name, or under the older name that it maps it to (GPT-2's `n_positions`)."""
    config = model.config.get_text_config()
    value = config.to_dict().get(config.attribute_map.get(name, name))
    return default if value is None else value


def plain_attention(model: PreTrainedModel) -> str:
    """transformers' own attention that is right for this model: torch's kernel cannot cap scores, and not every model can use it."""
    capped = configured(model, "attn_logit_softcapping") is not None
    return "sdpa" if model._supports_sdpa and not capped else "eager"


def root_and_leaf(forest: Forest) -> list[tuple[slice, slice]]:
    """The rows on N of each response's root and of its leaf, along R."""
    rows = []
    for tree in forest.trees:
        begin = tree.start + tree.root
        for length in tree.leaves:
            rows.append((slice(tree.start, tree.start + tree.root), slice(begin, begin + length)))
            begin += length
    return rows

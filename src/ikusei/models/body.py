"""The base model (all layers below the head), run over a forest: hidden states at the positions that a head reads.

Shared by all heads: the language model head (causal.py), reward and value heads (heads.py). Dropout is always off: the model stays in
eval mode, in training too.
"""

from __future__ import annotations

from types import MethodType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from ikusei.forest import Forest
from ikusei.models.attention import NAME, ForestLayout, Layout
from ikusei.models.fused_decoder import FusedDecoder

At = Literal["predicts", "last"]


def prepare(model: PreTrainedModel, layout: str) -> PreTrainedModel:
    """Sets eval mode and the attention implementation that the layout needs."""
    model.eval().set_attn_implementation(NAME if layout == "forest" else plain_attention(model))
    return model


class Body:
    """`layout` is "forest" (all trees packed into one row) or "padded" (a right-padded row of prompt and response for each response; causal
    attention needs no padding mask there)."""

    def __init__(self, module: nn.Module, layout: str) -> None:
        self.module, self.layout = module, layout
        self.fused = FusedDecoder.of(module) if layout == "forest" else None
        self.checkpointed = False

    def __call__(self, tokens: Tensor, position: Tensor, layout: Layout, rows: Tensor | None = None) -> Tensor:
        """tokens and positions [B, T] -> hidden states [B, T, d] under the mask of `layout`; with `rows`, only at these positions."""
        if self.fused is not None:
            return self.fused(tokens, position, layout, self.checkpointed, rows)
        states = self.module(input_ids=tokens, position_ids=position, use_cache=False, layout=layout).last_hidden_state
        return states if rows is None else states.index_select(1, rows)

    def plain(self, tokens: Tensor) -> Tensor:
        """[B, T] -> [B, T, d] with transformers' own attention, for the padded layout."""
        return self.module(input_ids=tokens, use_cache=False).last_hidden_state

    def hidden(self, forest: Forest, at: At) -> Tensor:
        """Hidden states at the position that predicts each target token, [M, d], or at each response's last token, [R, d]."""
        if self.layout == "forest":
            rows, again = torch.unique(forest.predicts_M if at == "predicts" else forest.last_R, return_inverse=True)
            return self(forest.tokens_N[None], forest.position_N[None], ForestLayout(forest), rows)[0].index_select(0, again)
        rows = [torch.cat([forest.tokens_N[root], forest.tokens_N[leaf]]) for root, leaf in root_and_leaf(forest)]
        states = self.plain(nn.utils.rnn.pad_sequence(rows, batch_first=True))
        if at == "predicts":
            return states.flatten(0, 1).index_select(0, forest.response_M * states.shape[1] + forest.position_M - 1)
        ends = torch.tensor([row.numel() - 1 for row in rows], device=states.device)
        return states[torch.arange(len(rows), device=states.device), ends]

    def checkpoint_layers(self) -> None:
        """Gradient checkpointing per layer. transformers' own needs training mode, which turns dropout on and the KV cache off."""
        self.checkpointed = True
        for module in self.module.modules():
            if isinstance(module, GradientCheckpointingLayer):
                module.forward = MethodType(_checkpointed, module)


def _checkpointed(layer: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """The layer's forward, checkpointed. Bound to the layer, so that a copy of the model has its own."""
    forward = type(layer).forward
    return checkpoint(forward, layer, *args, use_reentrant=False, **kwargs) if torch.is_grad_enabled() else forward(layer, *args, **kwargs)


def configured(model: PreTrainedModel, name: str, default: Any = None) -> Any:
    """A value of the model's config by its standard name, also where the config has another for it (GPT-2's `n_positions`)."""
    return config_value(model.config, name, default)


def config_value(config: PreTrainedConfig, name: str, default: Any = None) -> Any:
    """`configured`, from a config instead of a model."""
    config = config.get_text_config()
    value = config.to_dict().get(config.attribute_map.get(name, name))
    return default if value is None else value


def context_of(model: PreTrainedModel) -> int:
    """The context length in tokens."""
    return configured(model, "max_position_embeddings", 1 << 30)


def vocabulary_size(model: PreTrainedModel) -> int:
    """The number of rows of the input embedding."""
    embeddings: Any = model.get_input_embeddings()
    return embeddings.weight.shape[0]


def plain_attention(model: PreTrainedModel) -> str:
    """The transformers attention to use: sdpa, or eager where attention logits are soft-capped or the model does not support sdpa."""
    capped = configured(model, "attn_logit_softcapping") is not None
    return "sdpa" if model._supports_sdpa and not capped else "eager"


def root_and_leaf(forest: Forest) -> list[tuple[slice, slice]]:
    """For each response, in order, the slices of N that hold its root (the prompt) and its leaf (the response)."""
    rows = []
    for tree in forest.trees:
        begin = tree.start + tree.root
        for length in tree.leaves:
            rows.append((slice(tree.start, tree.start + tree.root), slice(begin, begin + length)))
            begin += length
    return rows

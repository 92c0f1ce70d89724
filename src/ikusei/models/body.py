"""The layers of a model below its heads, run over a forest: hidden states of the rows that a head reads.

Shared by all heads: the language model head (causal.py), reward and value heads (heads.py). Dropout is always off: the model stays in
evaluation mode, also in training.
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
    """Evaluation mode, and the attention that the layout needs."""
    model.eval().set_attn_implementation(NAME if layout == "forest" else plain_attention(model))
    return model


class Body:
    """`layout` is "forest" (one row with all trees) or "padded" (one row [root | leaf] for each response; causal attention needs no mask
    for padding on the right)."""

    def __init__(self, module: nn.Module, layout: str) -> None:
        self.module, self.layout = module, layout
        self.fused = FusedDecoder.of(module) if layout == "forest" else None
        self.checkpointed = False

    def __call__(self, tokens: Tensor, position: Tensor, layout: Layout, rows: Tensor | None = None) -> Tensor:
        """tokens and positions [B, T] -> hidden states [B, T, d] under the mask of `layout`; with `rows`, of these columns alone."""
        if self.fused is not None:
            return self.fused(tokens, position, layout, self.checkpointed, rows)
        states = self.module(input_ids=tokens, position_ids=position, use_cache=False, layout=layout).last_hidden_state
        return states if rows is None else states.index_select(1, rows)

    def plain(self, tokens: Tensor) -> Tensor:
        """[B, T] -> [B, T, d] with transformers' own attention, for the padded layout."""
        return self.module(input_ids=tokens, use_cache=False).last_hidden_state

    def hidden(self, forest: Forest, at: At) -> Tensor:
        """The hidden states that predict each target token, [M, d], or of each response's last token, [R, d]."""
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
        """Gradient checkpointing by layer. transformers' own would set training mode, which turns dropout on and the cache off."""
        self.checkpointed = True
        for module in self.module.modules():
            if isinstance(module, GradientCheckpointingLayer):
                module.forward = MethodType(_checkpointed, module)


def _checkpointed(layer: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """The layer's forward, checkpointed. Bound to the layer, so that a copy of the model has its own."""
    forward = type(layer).forward
    return checkpoint(forward, layer, *args, use_reentrant=False, **kwargs) if torch.is_grad_enabled() else forward(layer, *args, **kwargs)


def configured(model: PreTrainedModel, name: str, default: Any = None) -> Any:
    """A value of the model's configuration by its standard name; older names are mapped (GPT-2's `n_positions`)."""
    return config_value(model.config, name, default)


def config_value(config: PreTrainedConfig, name: str, default: Any = None) -> Any:
    """The same of a configuration alone."""
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
    """The implementation in transformers to use: sdpa, or eager where scores are capped or the model does not support sdpa."""
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

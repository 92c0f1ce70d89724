"""Make a model from a configuration of any transformers causal language model, with fresh weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from ikusei.models.load import load_tokenizer, to_device
from ikusei.text.tokenizer import make_character_tokenizer


@dataclass(frozen=True)
class MakeModel:
    """`architecture` is a transformers model type (qwen3, llama, ...), `config` its configuration's keys. The size of the vocabulary and
    the special tokens come from the tokenizer: "characters", or a folder or hub id to take one from."""

    architecture: str
    tokenizer: str = "characters"
    config: Mapping[str, Any] = field(default_factory=dict)


def make_tokenizer(asked: MakeModel) -> PreTrainedTokenizerBase:
    return make_character_tokenizer() if asked.tokenizer == "characters" else load_tokenizer(asked.tokenizer)


def make_model(asked: MakeModel, tokenizer: PreTrainedTokenizerBase, seed: int) -> PreTrainedModel:
    """Random weights that depend on `seed` alone. Raises ValueError for an architecture that transformers does not know."""
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    try:
        config = AutoConfig.for_model(asked.architecture, **{"vocab_size": len(tokenizer), **ids, **asked.config})
    except ValueError as error:
        raise ValueError(
            f"model.architecture: got {asked.architecture!r}; allowed: the model types of transformers, for example qwen3, llama, gpt2"
        ) from error
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return to_device(model)

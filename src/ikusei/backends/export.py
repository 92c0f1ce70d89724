"""Saves a model as a folder in Hugging Face format, and loads its weights back, bit for bit."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from ikusei.models.adapter import merged
from ikusei.samplers.local import end_tokens


def export(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Writes a folder that transformers, vLLM and lm-eval load without a flag: adapters are merged into the weights, and config.json
    does not name Ikusei's attention implementation. The generation config lists every end-of-sequence token."""
    logging.disable_progress_bar()
    model = merged(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config.pop("_attn_implementation", None)
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    if model.get_output_embeddings() is None:  # a reward model cannot generate
        return
    ends = sorted(end_tokens(model, tokenizer))
    generation = GenerationConfig() if model.generation_config is None else copy.deepcopy(model.generation_config)
    generation.update(eos_token_id=ends if len(ends) > 1 else ends[0], pad_token_id=tokenizer.pad_token_id)
    generation.save_pretrained(folder)


def restore_weights(model: PreTrainedModel, folder: Path) -> None:
    """Copies the weights that `save_pretrained` wrote into `model`, bit for bit, and a reward model's `reward_bias`."""
    saved = type(model).from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        for mine, theirs in zip(model.parameters(), saved.parameters(), strict=True):
            mine.copy_(theirs)
    if "reward_bias" in saved.config.to_dict():
        model.config.reward_bias = saved.config.reward_bias

"""Loads a model as a sampler, for inference."""

from __future__ import annotations

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from ikusei.models.causal import CausalModel
from ikusei.models.load import load_model, load_tokenizer, resolve, to_device
from ikusei.models.probe import probe
from ikusei.samplers.local import LocalSampler


def load_sampler(model: str, num_slots: int = 64, layout: str | None = None, fresh: bool = False) -> LocalSampler:
    """`model` is a folder, a hub id or `seedling`; `num_slots` responses are decoded at one time. `layout` None: chosen by the probe. With
    `fresh` the weights are random, from a fixed seed."""
    if fresh:
        torch.manual_seed(0)
        weights = to_device(AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(resolve(model)), dtype=torch.float32))
    else:
        weights = load_model(model)
    return LocalSampler(CausalModel(weights, layout or probe(weights).layout), load_tokenizer(model), num_slots)

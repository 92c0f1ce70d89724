"""A sampler of its own, for a model that is in use and not in training."""

from __future__ import annotations

from ikusei.models.causal import CausalModel
from ikusei.models.load import load_model, load_tokenizer
from ikusei.models.probe import probe
from ikusei.samplers.local import LocalSampler


def load_sampler(model: str, num_slots: int = 64) -> LocalSampler:
    """The model in a folder, of a hub id or `seedling`, laid out as the probe finds right. Writes `num_slots` responses at one time."""
    weights = load_model(model)
    return LocalSampler(CausalModel(weights, probe(weights).layout), load_tokenizer(model), num_slots)

"""A critic for a policy: a value head on the policy's base model, or on a base model of its own."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from transformers import PreTrainedModel

from ikusei.models.adapter import Lora, adapt
from ikusei.models.body import context_of, vocabulary_size
from ikusei.models.heads import Critic, RewardModel, zero_head
from ikusei.models.load import load_reward_model
from ikusei.models.probe import probe


def make_critic(model: PreTrainedModel, kind: str, layout: str, lora: Lora | None, seed: int) -> Critic:
    """`kind` is "head" (on the policy's base model), "separate" (on a copy of it), or the folder of a reward model, which initialises both
    base model and head. With LoRA, the critic's own base model has adapters too."""
    size = model.config.get_text_config().hidden_size
    if kind == "head":
        return Critic(zero_head(size, model.device))
    if kind == "separate":
        return Critic(zero_head(size, model.device), copy.deepcopy(model.base_model), layout)
    if "/" not in kind and not Path(kind).is_dir():
        raise ValueError(f"policy.critic: got {kind!r}; allowed: head, separate, or the folder of a reward model")
    weights = load_reward_model(kind)
    theirs, ours = ((vocabulary_size(each), context_of(each)) for each in (weights, model))
    found = probe(weights, RewardModel).layout
    if theirs[0] < ours[0] or theirs[1] < ours[1] or found != layout:
        raise ValueError(
            f"policy.critic {kind!r}: vocabulary {theirs[0]}, context {theirs[1]}, layout {found}; allowed: at least "
            f"the policy's {ours[0]} and {ours[1]}, and layout {layout}; train it from the policy's base model, or take critic: separate"
        )
    judge = RewardModel(weights if lora is None else adapt(weights, lora, seed), layout)
    head = zero_head(judge.head.in_features, model.device)
    with torch.no_grad():
        head.weight.copy_(judge.head.weight)
        head.bias.fill_(judge.bias)
    return Critic(head, judge.model.base_model, layout)

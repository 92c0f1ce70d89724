"""A critic for a policy: on the policy's own layers, or with a body of its own."""

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
    """`kind` is "head", "separate", or the folder of a reward model, whose body and head initialise the critic. For a policy with
    adapters, a separate body has adapters too."""
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
            f"policy.critic {kind!r}: it reads {theirs[0]} tokens, holds {theirs[1]} and is laid out {found}; the policy writes {ours[0]}, "
            f"holds {ours[1]} and is laid out {layout}; train the reward model from the same base, or take critic: separate"
        )
    judge = RewardModel(weights if lora is None else adapt(weights, lora, seed), layout)
    head = zero_head(judge.head.in_features, model.device)
    with torch.no_grad():
        head.weight.copy_(judge.head.weight)
        head.bias.fill_(judge.bias)
    return Critic(head, judge.model.base_model, layout)

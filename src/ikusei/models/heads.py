"""Scalar heads: a reward model reads the last token of each response, a critic the row before each target token.

A reward model is saved as transformers' sequence classifier with one label, which loads without a flag and reads the same token. A rescaled
head has the gain in its weights, and the bias as `reward_bias` in the configuration (rankings do not depend on it). A reward head is
initialised as N(0, 1 / (d + 1)) without bias, a critic's as zeros (arXiv:1909.08593 and its code).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ikusei.forest import Forest, Outputs
from ikusei.models.body import Body, context_of, prepare


class RewardModel:
    """A body and a head with one output for each response. `layout` is "forest" or "padded"."""

    def __init__(self, model: PreTrainedModel, layout: str = "forest", precision: str = "fp32") -> None:
        head: Any = dict(model.named_children()).get("score")
        if not isinstance(head, nn.Linear) or head.out_features != 1 or head.bias is not None:
            raise ValueError(
                f"model {type(model).__name__}: it has no head `score` of one number without a bias; give a reward model of one label"
            )
        self.model, self.head, self.layout, self.precision = prepare(model, layout), head, layout, precision
        self.body = Body(model.base_model, layout)

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def context(self) -> int:
        """The context length in tokens."""
        return context_of(self.model)

    @property
    def bias(self) -> float:
        return self.model.config.to_dict().get("reward_bias", 0.0)

    def outputs(self, forest: Forest) -> Outputs:
        """The reward of each response, differentiable; logp_M is empty."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            hidden_R = self.body.hidden(forest, "last")
        nothing = hidden_R.new_zeros(0, dtype=torch.float32)
        return Outputs(nothing, nothing, reward_R=one_number(self.head, hidden_R) + self.bias)

    def rescale(self, gain: float, bias: float) -> None:
        """reward = gain * reward + bias from now on."""
        with torch.no_grad():
            self.head.weight.mul_(gain)
        self.model.config.reward_bias = gain * self.bias + bias


class Critic(nn.Module):
    """The value before each target token. Without a body of its own it reads the policy's hidden states."""

    def __init__(self, head: nn.Linear, body: nn.Module | None = None, layout: str = "forest") -> None:
        super().__init__()
        self.head, self.body = head, body
        self.layers = None if body is None else Body(body, layout)

    def value(self, hidden_M: Tensor, forest: Forest) -> Tensor:
        """[M], from the policy's hidden states [M, d] or, with a body, from its own."""
        return one_number(self.head, hidden_M if self.layers is None else self.layers.hidden(forest, "predicts"))


def zero_head(size: int, device: torch.device) -> nn.Linear:
    """A new critic head, with value 0."""
    head = nn.Linear(size, 1, device=device)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def fresh_score(model: PreTrainedModel, seed: int) -> None:
    """Initialises the head of a reward model from `seed`."""
    head: Any = dict(model.named_children())["score"]
    chance = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        head.weight.copy_(torch.randn(head.weight.shape, generator=chance) / (head.in_features + 1) ** 0.5)


def one_number(head: nn.Linear, hidden: Tensor) -> Tensor:
    """[..., d] -> [...], in fp32 also where the body computes in bf16."""
    value = (hidden.float() * head.weight[0]).sum(-1)
    return value if head.bias is None else value + head.bias

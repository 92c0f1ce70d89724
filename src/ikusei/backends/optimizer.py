"""AdamW, and two ways to save the GPU memory of its moments, which is twice that of the weights.

    adamw          moments in fp32 beside the weights
    adamw_8bit     moments in 8 bits, block by block (arXiv:2110.02861), by bitsandbytes; those of small tensors stay in fp32
    offloaded      moments and a copy of the weights in CPU memory, where the step is computed; gradients go there, weights come back

Weight decay is on matrices, not on norms and biases.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import nn

Kind = Literal["adamw", "adamw_8bit"]
NO_BITSANDBYTES = "policy.optimizer: adamw_8bit needs bitsandbytes, which is not installed; pip install 'ikusei[lora]', or take adamw"


class Offloaded:
    """AdamW with moments and master weights in CPU memory. Has the interface of `torch.optim.Optimizer`."""

    def __init__(self, groups: list[dict[str, Any]], **settings: Any) -> None:
        self.own = [p for group in groups for p in group["params"]]
        self.copies = [p.detach().to("cpu", copy=True) for p in self.own]
        rest = iter(self.copies)
        self.inner = torch.optim.AdamW([{**group, "params": [next(rest) for _ in group["params"]]} for group in groups], **settings)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The inner optimiser's; `load_state_dict` replaces them."""
        return self.inner.param_groups

    @torch.no_grad()
    def step(self) -> None:
        for own, copy in zip(self.own, self.copies, strict=True):
            copy.grad = None if own.grad is None else own.grad.to("cpu", torch.float32)
        self.inner.step()
        for own, copy in zip(self.own, self.copies, strict=True):
            own.copy_(copy)
            copy.grad = None

    def zero_grad(self, set_to_none: bool = True) -> None:
        for own in self.own:
            own.grad = None

    def state_dict(self) -> dict[str, Any]:
        return self.inner.state_dict()

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the moments; the copies of the weights are refreshed from the model's current ones."""
        for own, copy in zip(self.own, self.copies, strict=True):
            copy.copy_(own)
        self.inner.load_state_dict(state)


def make_optimizer(weights: Iterable[nn.Parameter], kind: Kind, offloaded: bool, weight_decay: float, **settings: Any) -> Any:
    """`settings` are AdamW's betas and eps. Raises ValueError where bitsandbytes is needed and missing."""
    trained = [p for p in weights if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    if kind == "adamw_8bit":
        return _in_8_bits()(groups, lr=0.0, **settings)
    return (Offloaded if offloaded else torch.optim.AdamW)(groups, lr=0.0, fused=True, **settings)


def _in_8_bits() -> Any:
    try:
        from bitsandbytes.optim.adamw import AdamW8bit
    except ImportError as error:
        raise ValueError(NO_BITSANDBYTES) from error
    return AdamW8bit

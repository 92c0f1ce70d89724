"""Low-rank adapters (LoRA, arXiv:2106.09685): a large model learns by a few small matrices beside its frozen ones.

    W x  becomes  W x + alpha / rank * B A x          A [rank, i] random, B [o, rank] zero: at first the model is what it was

peft puts them in; only they are trained, so gradients, moments and checkpoints are theirs alone. What the model was before them is the
model with them switched off, which serves as the reference and costs no memory. Exports have them added into the weights, so that what is
loaded afterwards, the next stage too, is a plain model.

Left out: adapters on embeddings and heads, and dropout, since training stays in evaluation mode (body.py).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D  # GPT-2's linear layer

NAME = "default"  # of the adapter, by peft's own custom
MISSING = "policy.lora: it needs peft, which is not installed; pip install 'ikusei[lora]', or drop the key and train all weights"


@dataclass(frozen=True)
class Lora:
    """`targets` are the ends of the names of the layers that get one, such as q_proj and v_proj; none given: every linear layer but the
    head. `alpha` None: twice the rank."""

    rank: int = 16
    alpha: float | None = None
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.rank < 1 or (self.alpha is not None and self.alpha <= 0):
            raise ValueError(f"policy.lora: got rank={self.rank}, alpha={self.alpha}; allowed: rank 1 or more, usual are 8 to 64; alpha > 0")


def adapt(model: PreTrainedModel, settings: Lora, seed: int) -> PreTrainedModel:
    """Puts adapters into the model, in place; everything else no longer asks for gradients. Raises ValueError where peft is missing or a
    target is not in the model."""
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise ValueError(MISSING) from error
    linear = {name.rpartition(".")[2] for name, module in model.base_model.named_modules() if isinstance(module, (nn.Linear, Conv1D))}
    unknown = sorted(set(settings.targets) - linear)
    if unknown:
        raise ValueError(f"policy.lora.targets: got {', '.join(unknown)}; this model's linear layers are {', '.join(sorted(linear))}")
    alpha = 2 * settings.rank if settings.alpha is None else settings.alpha
    torch.manual_seed(seed)
    model.add_adapter(LoraConfig(r=settings.rank, lora_alpha=alpha, target_modules=sorted(settings.targets or linear)), NAME)
    return model.eval()


def adapters(model: nn.Module) -> list[Any]:
    """The layers that have an adapter; none in a plain model."""
    return [module for module in model.modules() if is_adapted(module)]


def is_adapted(module: nn.Module) -> bool:
    return type(module).__module__.startswith("peft.tuners.lora.layer")


def weight_of(module: Any) -> Tensor:
    """[o, i] of a linear layer, with what its adapter adds."""
    return module.weight + module.get_delta_weight(NAME) if is_adapted(module) else module.weight


@contextmanager
def switched_off(model: nn.Module) -> Iterator[None]:
    """The model as it was before its adapters."""
    found = adapters(model)
    for module in found:
        module.enable_adapters(False)
    try:
        yield
    finally:
        for module in found:
            module.enable_adapters(True)


@torch.no_grad()
def merged(model: PreTrainedModel) -> PreTrainedModel:
    """A plain copy with the adapters added into the weights; the model itself where it has none."""
    if not adapters(model):
        return model
    whole = copy.deepcopy(model)
    for name, module in list(whole.named_modules()):
        if is_adapted(module):
            parent, _, child = name.rpartition(".")
            module.base_layer.weight.copy_(weight_of(module))
            setattr(whole.get_submodule(parent), child, module.base_layer)
    whole._hf_peft_config_loaded = False
    return whole.requires_grad_(True)


def adapter_weights(model: nn.Module) -> dict[str, Tensor]:
    """What is trained, by name."""
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


@torch.no_grad()
def take_adapter(model: nn.Module, saved: Mapping[str, Tensor]) -> None:
    """Takes up what `adapter_weights` gave, to the bit."""
    for name, p in model.named_parameters():
        if name in saved:
            p.copy_(saved[name])

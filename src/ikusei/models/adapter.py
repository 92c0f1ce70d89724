"""Low-rank adapters (LoRA, arXiv:2106.09685): a large model learns by a few small matrices beside its frozen ones.

    W x  becomes  W x + alpha / rank * B A x          A [rank, i] random, B [o, rank] zero: at first the model is what it was

peft puts them in; only they are trained, so gradients, moments and checkpoints are theirs alone. What the model was before them is the
model with them switched off, which serves as the reference and costs no memory. Frozen matrices may be held in bf16, where they are
computed in it, or in 4 bits (QLoRA, arXiv:2305.14314: nf4, its scales in 8 bits), by bitsandbytes. Exports have the adapters added into
the weights that they were trained beside, so that what is loaded afterwards, the next stage too, is a plain model and says the same.

Left out: adapters on embeddings and heads, and dropout, since training stays in evaluation mode (body.py).
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D  # GPT-2's linear layer

NAME = "default"  # of the adapter, by peft's own custom
MISSING = "policy.lora: it needs {library}, which is not installed; pip install 'ikusei[lora]', or drop the key and train all weights"


@dataclass(frozen=True)
class Lora:
    """`targets` are the ends of the names of the layers that get one, such as q_proj and v_proj; none given: every linear layer but the
    head. `alpha` None: twice the rank. With `bits` 4 the frozen matrices are held in 4 bits."""

    rank: int = 16
    alpha: int | None = None
    targets: tuple[str, ...] = ()
    bits: Literal[4] | None = None

    def __post_init__(self) -> None:
        if self.rank < 1 or (self.alpha is not None and self.alpha <= 0):
            raise ValueError(
                f"policy.lora: got rank={self.rank}, alpha={self.alpha}; allowed: rank 1 or more (8 to 64 are usual), alpha > 0"
            )


def adapt(model: PreTrainedModel, settings: Lora, seed: int) -> PreTrainedModel:
    """Puts adapters into the model, in place; everything else no longer asks for gradients. Raises ValueError where peft is missing or a
    target is not in the model."""
    _installed("peft")
    from peft import LoraConfig

    linear = {name.rpartition(".")[2] for name, module in model.base_model.named_modules() if isinstance(module, (nn.Linear, Conv1D))}
    unknown = sorted(set(settings.targets) - linear)
    if unknown:
        raise ValueError(f"policy.lora.targets: got {', '.join(unknown)}; this model's linear layers are {', '.join(sorted(linear))}")
    alpha = 2 * settings.rank if settings.alpha is None else settings.alpha
    torch.manual_seed(seed)
    quantised: list[Any] = [module for module in model.modules() if is_quantised(module)]
    for module in quantised:
        module.support_avx512bf16_for_cpu = False  # bitsandbytes' packing for inference rounds scales, and has no backward
    turned = any(isinstance(module, Conv1D) for module in model.modules())
    targets = sorted(settings.targets or linear)
    try:
        model.add_adapter(LoraConfig(r=settings.rank, lora_alpha=alpha, target_modules=targets, fan_in_fan_out=turned), NAME)
    except ValueError as error:  # layers that peft knows to be wrong for the architecture
        raise ValueError(f"policy.lora.targets: {error}") from error
    return model.eval()


def four_bits() -> BitsAndBytesConfig:
    """How `from_pretrained` is asked for them. They are computed in fp32 until `lighten`."""
    _installed("peft")
    _installed("bitsandbytes")
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.float32
    )


def lighten(model: nn.Module) -> None:
    """What is frozen under an adapter, held or computed in bf16: for a model that is computed in it."""
    for module in adapters(model):
        if is_quantised(module.base_layer):
            module.base_layer.compute_dtype = torch.bfloat16
        else:
            module.base_layer.to(torch.bfloat16)


def adapters(model: nn.Module) -> list[Any]:
    """The layers that have an adapter; none in a plain model."""
    return [module for module in model.modules() if is_adapted(module)]


def is_adapted(module: nn.Module) -> bool:
    return type(module).__module__ in ("peft.tuners.lora.layer", "peft.tuners.lora.bnb")


def is_quantised(module: nn.Module) -> bool:
    return type(module).__name__ == "Linear4bit"


def weight_of(module: Any) -> Tensor:
    """[o, i] of a linear layer, in full, with what its adapter adds."""
    if is_adapted(module):
        return weight_of(module.base_layer) + module.get_delta_weight(NAME)
    if not is_quantised(module):
        return module.weight
    from peft.utils.integrations import dequantize_module_weight

    return dequantize_module_weight(module)


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
    """A plain copy in fp32 with the adapters added into the weights; the model itself where it has none."""
    if not adapters(model):
        return model
    whole: Any = copy.deepcopy(model)
    for parent in list(whole.modules()):
        for name, child in list(parent.named_children()):
            if is_adapted(child) or (is_quantised(child) and not is_adapted(parent)):
                setattr(parent, name, _plain(child))
    whole._hf_peft_config_loaded = False
    if "hf_quantizer" in vars(whole):
        whole.hf_quantizer.remove_quantization_config(whole)
    return whole.requires_grad_(True)


def _plain(module: Any) -> nn.Module:
    """A linear layer of the weights that this one computes with."""
    layer = module.base_layer if is_adapted(module) else module
    weight, bias = weight_of(module), layer.bias
    if is_quantised(layer) and layer.source_cls is Conv1D:  # whose weights are [i, o]
        layer, weight = Conv1D(layer.out_features, layer.in_features), weight.T.contiguous()
        layer.bias = bias
    elif is_quantised(layer):
        layer = nn.Linear(layer.in_features, layer.out_features, bias is not None, device="meta")
        layer.bias = bias
    layer.weight = nn.Parameter(weight)
    return layer.float()


def adapter_weights(model: nn.Module) -> dict[str, Tensor]:
    """What is trained, by name."""
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


@torch.no_grad()
def take_adapter(model: nn.Module, saved: Mapping[str, Tensor]) -> None:
    """Takes up what `adapter_weights` gave, to the bit."""
    for name, p in model.named_parameters():
        if name in saved:
            p.copy_(saved[name])


def _installed(library: str) -> None:
    if find_spec(library) is None:
        raise ValueError(MISSING.format(library=library))
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)  # peft loads it, and it misses a kernel that is not used

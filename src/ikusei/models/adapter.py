"""Low-rank adapters (LoRA, arXiv:2106.09685): a few small matrices are trained beside the frozen weights.

    W x  becomes  W x + alpha / rank * B A x          A [rank, i] random, B [o, rank] zero, so the initial model is unchanged

peft inserts them. Only they are trained, so gradients, moments and checkpoints are theirs alone. With the adapters switched off, the model
is the initial one, and serves as a reference that costs no memory. Frozen matrices are stored in bf16 where computation is in bf16, or in
4 bits (QLoRA, arXiv:2305.14314: nf4, scales in 8 bits) by bitsandbytes. Exports have the adapters merged into the weights that they were
trained beside, so that what is loaded later, also by the next stage, is an equal plain model. It must not be quantised to 4 bits again: the
rounding error is larger than what the adapters learned (load.py refuses).

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

TRAINED_IN = "trained_in_bits"  # configuration key of an export: its adapters were trained beside weights of so many bits
NAME = "default"  # of the adapter, by peft's own custom
MISSING = "policy.lora: it needs {library}, which is not installed; pip install 'ikusei[lora]', or drop the key and train all weights"


@dataclass(frozen=True)
class Lora:
    """`targets` are name suffixes of the layers that get an adapter, such as q_proj and v_proj; (): every linear layer but the head.
    `alpha` None: twice the rank. With `bits` 4 the frozen matrices are stored in 4 bits."""

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
    """Inserts adapters, in place, and freezes all other weights. Raises ValueError where peft is missing or a target is not in the
    model."""
    _installed("peft")
    from peft import LoraConfig

    linear = {name.rpartition(".")[2] for name, module in model.base_model.named_modules() if isinstance(module, (nn.Linear, Conv1D))}
    unknown = sorted(set(settings.targets) - linear)
    if unknown:
        raise ValueError(
            f"policy.lora.targets: got {', '.join(unknown)}; this model's linear layers are {', '.join(sorted(linear))}; take some of "
            "these, or leave targets out for all"
        )
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
    """The configuration of `from_pretrained` for 4 bits. Computation is in fp32 until `lighten`."""
    _installed("peft")
    _installed("bitsandbytes")
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.float32
    )


def lighten(model: nn.Module) -> None:
    """Stores the frozen weights under adapters in bf16, or computes with them in bf16 where they are in 4 bits."""
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
    """[o, i] the weight of a linear layer, dequantised, adapter included."""
    if is_adapted(module):
        return weight_of(module.base_layer) + module.get_delta_weight(NAME)
    if not is_quantised(module):
        return module.weight
    from peft.utils.integrations import dequantize_module_weight

    return dequantize_module_weight(module)


@contextmanager
def switched_off(model: nn.Module) -> Iterator[None]:
    """Switches the adapters off inside the block."""
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
    """A plain fp32 model with the adapters merged into the weights, for saving. Built in CPU memory, matrix by matrix. The model itself
    where it has no adapters. Buffers that are not saved (rotary tables) are left out."""
    if not adapters(model):
        return model
    config: Any = copy.deepcopy(model.config)
    if "quantization_config" in vars(config):
        del config.quantization_config
        setattr(config, TRAINED_IN, 4)
    with torch.device("meta"):
        whole = type(model)(config)
    weights = {name: _in_full(model, whole, name).detach().float().cpu() for name, _ in whole.named_parameters()}
    weights |= {name: model.get_buffer(name).cpu() for name, _ in whole.named_buffers() if name in whole.state_dict()}
    whole.load_state_dict(weights, strict=False, assign=True)
    whole.tie_weights()
    if model.can_generate():
        whole.generation_config = copy.deepcopy(model.generation_config)
    return whole


def _in_full(model: PreTrainedModel, whole: nn.Module, name: str) -> Tensor:
    """The tensor of the plain model's parameter `name`."""
    owner, _, last = name.rpartition(".")
    module: Any = model.get_submodule(owner)
    layer = module.base_layer if is_adapted(module) else module
    if last == "weight" and (is_adapted(module) or is_quantised(module)):
        turned = is_quantised(layer) and isinstance(whole.get_submodule(owner), Conv1D)  # there weights are [i, o]
        return weight_of(module).T.contiguous() if turned else weight_of(module)
    return dict(layer.named_parameters())[last]


def trained_weights(model: nn.Module) -> dict[str, Tensor]:
    """The trainable weights, by name."""
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def adapter_weights(model: nn.Module) -> dict[str, Tensor]:
    """The adapters' weights, by name, also where they are frozen."""
    return {name: p.detach() for name, p in model.named_parameters() if ".lora_" in name}


@torch.no_grad()
def restore_trained(model: nn.Module, saved: Mapping[str, Tensor], share: float = 1.0) -> None:
    """own = share * saved + (1 - share) * own, for the weights of `trained_weights` or `adapter_weights`; a share of 1 restores
    bit-equal."""
    own = dict(model.named_parameters())
    for name, weight in saved.items():
        own[name].lerp_(weight.to(own[name].device), share) if share < 1 else own[name].copy_(weight)


def _installed(library: str) -> None:
    if find_spec(library) is None:
        raise ValueError(MISSING.format(library=library))
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)  # peft loads it, and it misses a kernel that is not used

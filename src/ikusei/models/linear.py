"""x W' + b for weights that stay as they are for a while: laid out once as they are read. Of few rows, as in decoding, that is up to half
of a product's time. Large matrices, and those in bf16 where the CPU has instructions for it, are laid out for the CPU's matrix unit; others
are turned once. On a GPU they stay.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

LARGE = 1_500_000  # numbers of an fp32 matrix from which on that layout is the faster one


@torch.no_grad()
def product(weight: Tensor, bias: Tensor | None, rows: int) -> Callable[[Tensor], Tensor]:
    """weight [o, i] and bias [o] -> a function of [..., i] to [..., o], without gradients. `rows` is about how many it is asked for."""
    if weight.device.type != "cpu":
        return lambda x: F.linear(x, weight, bias)
    if not torch.backends.mkldnn.is_available() or not _pays(weight):
        turned = weight.t().contiguous()
        if bias is None:
            return lambda x: x.to(weight.dtype) @ turned
        return lambda x: torch.addmm(bias, x.to(weight.dtype).flatten(0, -2), turned).unflatten(0, x.shape[:-1])
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), rows)
    return lambda x: torch.ops.mkldnn._linear_pointwise(x.to(weight.dtype), packed, bias, "none", [], "")


def _pays(weight: Tensor) -> bool:
    """oneDNN refuses bf16 on a CPU without AVX-512 or AVX-NE-CONVERT."""
    if weight.dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return weight.numel() >= LARGE

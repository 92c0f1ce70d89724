"""x W' + b for weights that stay as they are for a while: laid out once as they are read. Of few rows, as in decoding, that is up to half
of a product's time. Large matrices, and those in bf16, are laid out for the CPU's matrix unit; others are turned once. On a GPU they stay.
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
    pays = weight.dtype == torch.bfloat16 or weight.numel() >= LARGE
    if not pays or not torch.backends.mkldnn.is_available():
        turned = weight.t().contiguous()
        return lambda x: x @ turned if bias is None else torch.addmm(bias, x.flatten(0, -2), turned).unflatten(0, x.shape[:-1])
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), rows)
    return lambda x: torch.ops.mkldnn._linear_pointwise(x.to(weight.dtype), packed, bias, "none", [], "")

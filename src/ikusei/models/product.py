"""x W' + b for weights that stay as they are for a while: laid out once as the CPU's matrix unit reads them, which otherwise each product
does again. Of few rows, as in decoding, that is up to half of its time; in fp32 small matrices gain nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

LARGE = 400_000  # numbers of an fp32 matrix from which on it pays


@torch.no_grad()
def product(weight: Tensor, bias: Tensor | None, rows: int) -> Callable[[Tensor], Tensor]:
    """weight [o, i] and bias [o] -> a function of [..., i] to [..., o], without gradients. `rows` is about how many it is asked for."""
    pays = weight.dtype == torch.bfloat16 or weight.numel() >= LARGE
    if weight.device.type != "cpu" or not pays or not torch.backends.mkldnn.is_available():
        return lambda x: F.linear(x, weight, bias)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), rows)
    return lambda x: torch.ops.mkldnn._linear_pointwise(x.to(weight.dtype), packed, bias, "none", [], "")

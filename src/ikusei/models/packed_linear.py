"""Linear layers with prepacked weights, for decoding: the weights are copied once into the layout that the kernel reads, which takes up to
half of the time of a product with few rows. Large matrices, and bf16 ones where the CPU has instructions for them, are packed by oneDNN;
others are transposed. On a GPU they stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

LARGE = 1_500_000  # elements of an fp32 matrix from which on packing by oneDNN is faster


@torch.no_grad()
def prepacked(weight: Tensor, bias: Tensor | None, rows: int) -> Callable[[Tensor], Tensor]:
    """weight [o, i] and bias [o] -> a function of [..., i] to [..., o], without gradients. `rows` is the typical number of rows of its
    input."""
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

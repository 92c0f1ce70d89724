"""Decoder layers of the Llama block in fewer, larger operations; numerically equal to transformers' modules.

    x = x + out(attention(rotate(norm(q)), rotate(norm(k)), v))      with q, k, v = qkv(rms_norm(x))
    x = x + down(act(gate(h)) * up(h))                               with h = rms_norm(x)

`FusedDecoder.of` accepts only the model families that are built this way; the others run through transformers' modules. `models/probe.py`
compares its outputs with the plain model's at loading time. For training, each projection stays a module of its own. For sampling, `merged`
concatenates the projections of one input into one matrix, in the precision of the computation. RMSNorm and rotary embedding have
hand-written backward passes: autograd's would keep and read twice as many tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ikusei.models.adapter import is_quantised, weight_of
from ikusei.models.attention import Form, Layout
from ikusei.models.packed_linear import prepacked

FAMILIES = frozenset({"llama", "mistral", "qwen2", "qwen3"})
STEADY = frozenset({"default", "linear", "llama3", "yarn"})  # RoPE types whose angles depend on the position alone
BODY = {"embed_tokens", "layers", "norm", "rotary_emb"}
LAYER = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
MLP = {"gate_proj", "up_proj", "down_proj", "act_fn"}


Angles = tuple[Tensor, Tensor]  # cos and sin
AttendStep = Callable[[nn.Module, Tensor, Tensor, Tensor, Form], Tensor]  # of a layer q [B, H, D], k and v [B, Hkv, D] -> seen [B, H * D]


@dataclass(frozen=True)
class LayerOps:
    """The operations of one layer. `qkv` maps [..., d] and the angles to queries, keys and values [..., heads, D], rotated."""

    name: nn.Module  # the attention module, by which layouts and caches identify the layer
    form: Form
    before_attention: Callable[[Tensor], Tensor]
    qkv: Callable[[Tensor, Angles], tuple[Tensor, Tensor, Tensor]]
    out: Callable[[Tensor], Tensor]
    before_mlp: Callable[[Tensor], Tensor]
    mlp: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class FusedDecoder:
    """Embedding, layers and last norm. `rotary` maps positions [...] to the rotary angles."""

    body: Any
    layers: tuple[LayerOps, ...]
    last_norm: Callable[[Tensor], Tensor]
    rotary: Callable[[Tensor], Angles]

    @classmethod
    def of(cls, body: nn.Module) -> FusedDecoder | None:
        """The fused form of a body, or None where its architecture is another."""
        fits = _children(body) == BODY and all(map(_is_common, body.layers))  # pyright: ignore[reportArgumentType]
        config: Any = body.config
        if config.model_type not in FAMILIES or not fits or config.rope_parameters.get("rope_type", "default") not in STEADY:
            return None
        layers = tuple(_trained(layer, _window(config, number)) for number, layer in enumerate(body.layers))  # pyright: ignore[reportArgumentType]
        return cls(body, layers, _norm(body.norm), lambda position: _angles(body, position))

    def __call__(self, tokens: Tensor, position: Tensor, layout: Layout, checkpointed: bool = False, rows: Tensor | None = None) -> Tensor:
        """tokens and positions [B, T] -> hidden states [B, T, d] after the last norm. `checkpointed` is gradient checkpointing by layer.
        With `rows`, hidden states of these columns alone: the last layer computes its MLP for them only."""
        x = self.body.embed_tokens(tokens)
        angles = self.rotary(position)
        for ops in self.layers:
            wanted = rows if ops is self.layers[-1] else None
            if checkpointed and torch.is_grad_enabled():
                x = checkpoint(_layer, ops, x, angles, layout, wanted, use_reentrant=False)
            else:
                x = _layer(ops, x, angles, layout, wanted)
        return self.last_norm(x)  # pyright: ignore[reportArgumentType]

    def step(self, token_B: Tensor, position_B: Tensor, attend: AttendStep) -> Tensor:
        """One token in each row, [B] -> hidden states [B, d] after the last norm."""
        x, angles = self.body.embed_tokens(token_B), self.rotary(position_B)
        for ops in self.layers:
            x = x + ops.out(attend(ops.name, *ops.qkv(ops.before_attention(x), angles), ops.form))
            x = x + ops.mlp(ops.before_mlp(x))
        return self.last_norm(x)

    def merged(self, dtype: torch.dtype, context: int, rows: int) -> FusedDecoder:
        """A copy of the current weights for sampling, without gradients; later updates do not reach it. `context` is the largest position
        plus 1, `rows` the typical batch size in tokens. Matrices in 4 bits are not copied."""
        if any(map(is_quantised, self.body.modules())):
            return self
        turns = torch.complex(
            *(x.contiguous() for x in _angles(self.body, torch.arange(context, device=self.body.embed_tokens.weight.device)))
        )
        layers = tuple(_merged(layer, ops, dtype, rows) for layer, ops in zip(self.body.layers, self.layers, strict=True))
        norm, eps = self.body.norm, _eps(self.body.norm)
        last_norm = lambda x: _unit(x, eps).mul_(norm.weight)  # noqa: E731
        return FusedDecoder(self.body, layers, last_norm, lambda position: (turns[position], turns[:0]))


def _layer(ops: LayerOps, x: Tensor, angles: Angles, layout: Layout, rows: Tensor | None = None) -> Tensor:
    q, k, v = ops.qkv(ops.before_attention(x), angles)
    seen = layout.attend(ops.name, q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), ops.form)
    seen = seen.transpose(1, 2).flatten(2)
    if rows is not None:
        x, seen = x.index_select(1, rows), seen.index_select(1, rows)
    x = x + ops.out(seen)
    return x + ops.mlp(ops.before_mlp(x))


def _trained(layer: Any, window: int | None) -> LayerOps:
    """For training: each projection is called as a module of its own, with its gradients and adapter."""
    attention, mlp, D = layer.self_attn, layer.mlp, layer.self_attn.head_dim
    norms = [_norm(attention.q_norm), _norm(attention.k_norm)] if "q_norm" in _children(attention) else [_same, _same]

    def qkv(h: Tensor, angles: Angles) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (project(h).unflatten(-1, (-1, D)) for project in (attention.q_proj, attention.k_proj, attention.v_proj))
        return _Rotate.apply(norms[0](q), *angles), _Rotate.apply(norms[1](k), *angles), v  # pyright: ignore[reportReturnType]

    return LayerOps(
        attention, Form(attention.scaling, window), _norm(layer.input_layernorm), qkv, attention.o_proj,
        _norm(layer.post_attention_layernorm), lambda h: mlp.down_proj(mlp.act_fn(mlp.gate_proj(h)) * mlp.up_proj(h)),
    )  # fmt: skip


@torch.no_grad()
def _merged(layer: Any, ops: LayerOps, dtype: torch.dtype, rows: int) -> LayerOps:
    """For sampling: q, k and v as one matrix, gate and up as another. The weights of the norms before them are folded in. Dimensions are
    permuted so that each rotated pair is adjacent, as a complex number; q and k are permuted alike, so their products do not change."""
    attention, mlp, D = layer.self_attn, layer.mlp, layer.self_attn.head_dim
    first, second = layer.input_layernorm, layer.post_attention_layernorm
    heads, kv = attention.q_proj.out_features // D, attention.k_proj.out_features // D
    order, eps = torch.arange(D).view(2, D // 2).T.flatten(), _eps(first)
    norms = [attention.q_norm, attention.k_norm] if "q_norm" in _children(attention) else []
    gain = torch.cat([norm.weight[order].expand(count, -1) for norm, count in zip(norms, (heads, kv), strict=True)]) if norms else None
    beside = partial(_beside, dtype=dtype, rows=rows)
    project = beside([attention.q_proj, attention.k_proj, attention.v_proj], gain=first.weight, order=_by_pairs(order, heads + kv, kv))
    gate_up, down = beside([mlp.gate_proj, mlp.up_proj], gain=second.weight), beside([mlp.down_proj])

    def qkv(h: Tensor, angles: Angles) -> tuple[Tensor, Tensor, Tensor]:
        qk, v = project(h).unflatten(-1, (-1, D)).split((heads + kv, kv), -2)
        if gain is not None:
            qk = _unit(qk, eps).mul_(gain)
        turned = torch.view_as_real(torch.view_as_complex(qk.float().unflatten(-1, (-1, 2))) * angles[0]).flatten(-2)
        q, k = turned.split((heads, kv), -2)
        return q, k, v

    def feed(h: Tensor) -> Tensor:
        gate, up = gate_up(h).chunk(2, -1)
        return down(mlp.act_fn(gate).mul_(up))

    return LayerOps(
        ops.name, ops.form, lambda x: _unit(x, eps), qkv, beside([attention.o_proj]),
        lambda x: _unit(x, eps), feed,
    )  # fmt: skip


def _by_pairs(order: Tensor, turned: int, more: int) -> Tensor:
    """The rows of a projection whose first `turned` heads are put into `order`, while those of `more` heads stay."""
    D = order.numel()
    return torch.cat([order + D * head for head in range(turned)] + [torch.arange(D * turned, D * (turned + more))])


def _beside(
    modules: list[nn.Linear], dtype: torch.dtype, rows: int, gain: Tensor | None = None, order: Tensor | None = None
) -> Callable[[Tensor], Tensor]:
    """One product for several projections of the same input, which `gain` [d] multiplies; with its outputs in `order`."""
    weight = torch.cat([weight_of(module) for module in modules])
    bias = None if modules[0].bias is None else torch.cat([module.bias for module in modules]).to(dtype)
    weight = (weight if gain is None else weight * gain).to(dtype)
    if order is not None:
        weight, bias = weight[order], None if bias is None else bias[order]
    return prepacked(weight, bias, rows)


def _unit(x: Tensor, eps: Tensor) -> Tensor:
    """x / sqrt(mean(x^2) + eps) over the last axis. `eps` is a tensor so that it is added in one operation with the rest."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    return x * torch.addcmul(eps, length, length, value=1 / x.shape[-1]).rsqrt_()


def _eps(norm: Any) -> Tensor:
    """Of a norm; all norms of a model have the same."""
    return torch.tensor(norm.variance_epsilon, device=norm.weight.device)


def _norm(module: Any) -> Callable[[Tensor], Tensor]:
    return lambda x: _RMSNorm.apply(x, module.weight, module.variance_epsilon)  # pyright: ignore[reportReturnType]


def _same(x: Tensor) -> Tensor:
    return x


def _angles(body: Any, position: Tensor) -> Angles:
    """cos and sin [..., 1, D / 2]. transformers gives each angle twice, once for each half of a head."""
    like = torch.empty(0, dtype=torch.float32, device=position.device)
    cos, sin = body.rotary_emb(like, position.reshape(1, -1))
    half = cos.shape[-1] // 2
    return cos[0, :, :half].reshape(*position.shape, 1, half), sin[0, :, :half].reshape(*position.shape, 1, half)


def _window(config: Any, number: int) -> int | None:
    """How far back layer `number` sees. Mistral's window is for every layer; Qwen's only for those that its configuration names."""
    kinds = config.to_dict().get("layer_types")
    slides = config.model_type == "mistral" if kinds is None else kinds[number] == "sliding_attention"
    return config.to_dict().get("sliding_window") if slides else None


def _children(module: nn.Module) -> set[str]:
    return {name for name, _ in module.named_children()}


def _is_common(layer: nn.Module) -> bool:
    if _children(layer) != LAYER:
        return False
    attention, mlp = layer.self_attn, layer.mlp
    return _children(attention) in (ATTENTION, ATTENTION | {"q_norm", "k_norm"}) and _children(mlp) == MLP  # pyright: ignore[reportArgumentType]


class _RMSNorm(torch.autograd.Function):
    """y = w * x / sqrt(mean(x^2) + eps) over the last axis."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        inverse = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        inverse = inverse.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, inverse)
        return (x * inverse).mul_(weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight, inverse = ctx.saved_tensors
        unit = x * inverse
        product = grad * unit
        along = (product @ weight).div_(x.shape[-1]).unsqueeze(-1)
        grad_x = (grad * weight).addcmul_(unit, along, value=-1).mul_(inverse)
        grad_weight = product.flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None
        return grad_x.to(x.dtype), grad_weight, None


class _Rotate(torch.autograd.Function):
    """Each pair (x_i, x_{i + D/2}) turned by its position's angle; the backward turns back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin, 1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        cos, sin = ctx.saved_tensors
        return _turned(grad, cos, sin, -1), None, None


def _turned(x: Tensor, cos: Tensor, sin: Tensor, sign: int) -> Tensor:
    first, second = x.chunk(2, -1)
    turned = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    left, right = turned.chunk(2, -1)
    torch.mul(first, cos, out=left)
    left.addcmul_(second, sin, value=-sign)
    torch.mul(second, cos, out=right)
    right.addcmul_(first, sin, value=sign)
    return turned

"""Law 14: in bf16 (compute in bf16, master weights in fp32) one step at lr 1e-6 moves more than 99 % of the parameters that have a
gradient."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import worlds

from ikusei.backends.local import LocalSettings
from ikusei.forest import plant

LR = 1e-6


@pytest.mark.parametrize("name", ["qwen3", "qwen3 with adapters", "gemma2 window caps", "lfm2 convolution"])
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_a_step_of_a_millionth_arrives(precision: str, name: str) -> None:
    settings = worlds.ADAPTED if name.endswith(worlds.WITH_ADAPTERS) else LocalSettings()
    policy = worlds.make_policy(name, replace(settings, precision="bf16" if precision == "bf16" else "fp32"))
    algorithm = worlds.ALGORITHMS["language modelling"]
    policy.forward_backward(plant(worlds.make_groups(worlds.FOREST_SHAPES["many short trees"])), algorithm.loss)
    before = worlds.weights(policy)
    touched = {name: p.grad != 0 for name, p in policy.causal.model.named_parameters() if p.grad is not None}
    policy.optim_step(LR)
    after = worlds.weights(policy)
    learning = {name for name, p in policy.causal.model.named_parameters() if p.requires_grad}
    assert {after[name].dtype for name in learning} == {torch.float32}
    with_gradient = sum(int(on.sum()) for on in touched.values())
    moved = sum(int((after[name] != before[name])[on].sum()) for name, on in touched.items())
    assert with_gradient > 0.5 * sum(before[name].numel() for name in learning)
    assert moved > 0.99 * with_gradient, f"{moved} of {with_gradient}"
    assert max(float((after[name] - before[name]).abs().max()) for name in before) < 2 * LR
    in_bf16 = sum(int((after[name].bfloat16() != before[name].bfloat16())[on].sum()) for name, on in touched.items())
    assert in_bf16 < 0.5 * with_gradient, "weights in bf16 would have moved as well, so this shows nothing"

"""What the optimiser gets of the settings: the clipped norm, decay on matrices alone, AdamW's numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ikusei.backends.local import LocalSettings
from laws import worlds

WAYS = [{}, {"offload_optimizer": True}, {"optimizer": "adamw_8bit"}]
NAMES = ["adamw", "offloaded", "8 bits"]


@pytest.mark.parametrize(("clip_norm", "seen"), [(0.01, 0.01), (4.5, 4.5), (6.0, 5.0), (float("inf"), 5.0)])
def test_the_optimiser_sees_the_clipped_gradient(clip_norm: float, seen: float) -> None:
    """A norm and a matrix have one gradient each, of norms 3 and 4: 5 together. It is told as it was."""
    policy = worlds.make_policy(settings=LocalSettings(layout="forest", clip_norm=clip_norm))
    weights = worlds.parameters(policy)
    for name, size in (("model.norm.weight", 3.0), ("model.layers.0.self_attn.k_proj.weight", -4.0)):
        gradient = torch.zeros_like(weights[name])
        gradient.view(-1)[7] = size
        weights[name].grad = gradient
    norms: list[float] = []

    def look(*_: Any) -> None:
        norms.append(sum(float(p.grad.norm()) ** 2 for p in weights.values() if p.grad is not None) ** 0.5)

    policy.optimizer.register_step_pre_hook(look)
    assert policy.optim_step(1e-3)["grad_norm"] == pytest.approx(5.0)
    assert norms == [pytest.approx(seen, rel=1e-4)]


@pytest.mark.parametrize("way", WAYS, ids=NAMES)
def test_decay_is_on_matrices_alone(way: dict[str, Any]) -> None:
    """Without a gradient a step of rate 0.1 with a decay of 0.5 leaves 0.95 of a matrix, and norms and biases as they were."""
    policy = worlds.make_policy("phi", LocalSettings(layout="forest", weight_decay=0.5, **way))
    before = worlds.weights(policy)
    policy.optim_step(0.1)
    after = worlds.weights(policy)
    assert {weight.ndim for weight in before.values()} == {1, 2}
    for name, weight in before.items():
        expected = 0.95 * weight if weight.ndim == 2 else weight
        torch.testing.assert_close(after[name], expected, rtol=1e-6, atol=0.0, msg=name)


def test_the_moments_decay_in_a_step_that_teaches_nothing() -> None:
    """A gradient of 2 in one place, then none at all: 0.9 of the first moment, 0.95 of the second, and two steps counted."""
    policy = worlds.make_policy(settings=LocalSettings(layout="forest", clip_norm=float("inf")))
    weight = worlds.parameters(policy)["model.norm.weight"]
    weight.grad = torch.zeros_like(weight)
    weight.grad[5] = 2.0
    policy.optim_step(1e-3)
    policy.optim_step(1e-3)
    states = policy.optimizer.state
    assert {int(state["step"]) for state in states.values()} == {2} and len(states) == len(worlds.parameters(policy))
    assert float(states[weight]["exp_avg"][5]) == pytest.approx(0.9 * 0.1 * 2.0, rel=1e-5)
    assert float(states[weight]["exp_avg_sq"][5]) == pytest.approx(0.95 * 0.05 * 4.0, rel=1e-5)


@pytest.mark.parametrize("way", WAYS, ids=NAMES)
def test_settings_arrive_in_the_optimiser(way: dict[str, Any]) -> None:
    settings = LocalSettings(layout="forest", weight_decay=0.3, beta1=0.85, beta2=0.97, eps=1e-6, **way)
    policy = worlds.make_policy(settings=settings, needs=frozenset({"value"}))
    matrices, vectors = policy.optimizer.param_groups
    assert {p.ndim for p in matrices["params"]} == {2} and {p.ndim for p in vectors["params"]} == {1}
    assert len(matrices["params"]) + len(vectors["params"]) == len(worlds.parameters(policy))
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.3, 0.0)
    for group in (matrices, vectors):
        assert tuple(group["betas"])[:2] == (0.85, 0.97) and group["eps"] == 1e-6
    policy.optim_step(0.02)
    assert [group["lr"] for group in policy.optimizer.param_groups] == [0.02, 0.02]

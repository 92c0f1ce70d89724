"""LoRA: only adapters are trained, the reference is the model without them, exports are plain models, and a stop loses nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from ikusei.algos.lm import LanguageModelling
from ikusei.backends.local import LocalPolicy, LocalSettings, WithoutAdapter
from ikusei.forest import plant
from ikusei.loops.steps import update
from ikusei.models import adapter
from ikusei.models.adapter import Lora
from ikusei.types import Prompt, Sampling
from laws import worlds

pytest.importorskip("peft", reason="peft is not installed; `make install` does it (the extra `lora`)")
ADAPTED = LocalSettings(lora=Lora(rank=3, alpha=5.0))
NAMES = ["qwen3", "gemma2 window caps", "gpt2 dropout", "lfm2 convolution"]


def learned(policy: LocalPolicy, steps: int = 3) -> LocalPolicy:
    forest = plant(worlds.make_groups(worlds.FOREST_SHAPES["mixed"]))
    for _ in range(steps):
        update(policy, [(forest, LanguageModelling().loss)], 1 << 20, lr=1e-2)
    return policy


def logps(policy: object) -> torch.Tensor:
    return policy.forward(plant(worlds.make_groups(worlds.FOREST_SHAPES["mixed"], seed=3))).logp_M  # pyright: ignore


@pytest.mark.parametrize("name", NAMES)
def test_it_begins_as_the_model_and_only_adapters_move(name: str) -> None:
    plain, adapted = worlds.make_policy(name), worlds.make_policy(name, ADAPTED)
    torch.testing.assert_close(logps(adapted), logps(plain), rtol=1e-5, atol=1e-5)
    before = worlds.weights(adapted)
    learned(adapted)
    moved = {key for key, weight in worlds.weights(adapted).items() if not torch.equal(weight, before[key])}
    assert moved
    assert all("lora_" in key for key in moved)
    assert moved == set(adapter.adapter_weights(adapted.causal.model))


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_is_the_model_without_them(name: str) -> None:
    adapted = worlds.make_policy(name, ADAPTED)
    reference = adapted.reference()
    assert isinstance(reference, WithoutAdapter)
    learned(adapted)
    torch.testing.assert_close(logps(reference), logps(worlds.make_policy(name)), rtol=1e-5, atol=1e-5)
    assert (logps(adapted) - logps(reference)).abs().max() > 0.01
    later = adapted.reference()  # of a model that has learned: a copy, adapters and all
    torch.testing.assert_close(logps(later), logps(adapted))


@pytest.mark.parametrize("name", NAMES)
def test_the_export_is_a_plain_model(name: str, tmp_path: Path) -> None:
    adapted = learned(worlds.make_policy(name, ADAPTED))
    whole = adapter.merged(adapted.causal.model)
    whole.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("adapter*"))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert not adapter.adapters(loaded)
    torch.testing.assert_close(logps(LocalPolicy(loaded, worlds.IDS)), logps(adapted), rtol=1e-4, atol=1e-4)


def test_its_own_gradients_are_those_of_the_merged_weights() -> None:
    """dL/dB = scale dL/dW A' and dL/dA = scale B' dL/dW, from the gradient of a plain model of the same weights."""
    adapted = learned(worlds.make_policy("qwen3", ADAPTED))
    plain = LocalPolicy(adapter.merged(adapted.causal.model), worlds.IDS, LocalSettings(layout="forest"))
    forest = plant(worlds.make_groups(worlds.FOREST_SHAPES["many short trees"], seed=4))
    for policy in (adapted, plain):
        policy.forward_backward(forest, LanguageModelling().loss)
    there = dict(plain.causal.model.named_modules())
    for name, module in adapted.causal.model.named_modules():
        if adapter.is_adapted(module):
            A, B, dW = module.lora_A[adapter.NAME].weight, module.lora_B[adapter.NAME].weight, there[name].weight.grad
            scale = 5.0 / 3
            torch.testing.assert_close(B.grad, scale * dW @ A.T, rtol=1e-3, atol=1e-5)
            torch.testing.assert_close(A.grad, scale * B.T @ dW, rtol=1e-3, atol=1e-5)


def test_samples_are_of_the_adapted_model() -> None:
    adapted = learned(worlds.make_policy("qwen3", ADAPTED))
    (group,) = adapted.snapshot().sample([Prompt("p", (5, 6, 7), "p")], 4, Sampling(max_tokens=8), seed=1)
    forest = plant([group])
    assert (adapted.forward(forest).logp_M - forest["sampled_logp_M"]).abs().max() < 1e-4


def test_a_checkpoint_holds_the_adapter(tmp_path: Path) -> None:
    one = learned(worlds.make_policy("qwen3", ADAPTED), 2)
    one.tokenizer = worlds.make_talker().tokenizer
    one.save(tmp_path)
    other = worlds.make_policy("qwen3", ADAPTED)
    other.load(tmp_path)
    for policy in (one, other):
        learned(policy, 2)
    mine, theirs = worlds.weights(one), worlds.weights(other)
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_moments_elsewhere_are_the_same_steps(tmp_path: Path) -> None:
    """On a CPU there is nowhere else to go, so every weight must be equal to the bit, through a checkpoint too."""
    ends = []
    for offloaded in (False, True):
        policy = worlds.make_policy("qwen3", LocalSettings(offload_optimizer=offloaded, weight_decay=0.1))
        policy.tokenizer = worlds.make_talker().tokenizer
        learned(policy, 2).save(tmp_path / str(offloaded))
        other = worlds.make_policy("qwen3", LocalSettings(offload_optimizer=offloaded, weight_decay=0.1), seed=1)
        other.load(tmp_path / str(offloaded))
        ends.append(worlds.weights(learned(other, 2)))
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_eight_bits_want_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="adamw_8bit needs bitsandbytes and a GPU, and there is no GPU"):
        worlds.make_policy("qwen3", LocalSettings(optimizer="adamw_8bit"))


def test_an_unknown_target() -> None:
    with pytest.raises(ValueError, match="q_project; this model's linear layers are down_proj, gate_proj"):
        worlds.make_policy("qwen3", LocalSettings(lora=Lora(targets=("q_project",))))


def test_reward_models_train_their_head_too() -> None:
    policy = worlds.make_policy("qwen3", ADAPTED, needs=frozenset({"reward"}))
    trained = adapter.adapter_weights(policy.causal.model)
    assert any(name.startswith("score") for name in trained)

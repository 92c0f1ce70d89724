"""LoRA: only adapters are trained, the reference is the model without them, exports are plain models, and a stop loses nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from ikusei.algos.lm import LanguageModelling
from ikusei.backends.local import LocalPolicy, LocalSettings, WithoutAdapter
from ikusei.forest import Loss, plant
from ikusei.loops.update import update
from ikusei.models import adapter
from ikusei.models.adapter import Lora
from ikusei.models.heads import RewardModel
from ikusei.models.load import load_model
from ikusei.preflight.check import check_file
from ikusei.protocols import LossFunction
from ikusei.recipe.build import build
from ikusei.recipe.reader import parse
from ikusei.recipe.schema import read_recipe
from ikusei.recipe.stage_checks import weights_are_rounded_once
from ikusei.recipe.stages import read_stages
from ikusei.types import Prompt, Sampling
from laws import worlds

ADAPTED = worlds.ADAPTED
NAMES = ["qwen3", "gemma2 window caps", "gpt2 dropout", "lfm2 convolution", "phi3"]


def make_policy(
    name: str = "qwen3", settings: LocalSettings | None = None, seed: int = 0, needs: frozenset[str] = frozenset()
) -> LocalPolicy:
    """With adapters as they begin."""
    return LocalPolicy(worlds.make_model(name, seed, reward="reward" in needs), worlds.IDS, settings, needs)


def learned(policy: LocalPolicy, steps: int = 3, lr: float = 1e-2) -> LocalPolicy:
    forest = plant(worlds.make_groups(worlds.FOREST_SHAPES["mixed"]))
    for _ in range(steps):
        update(policy, [(forest, LanguageModelling().loss)], 1 << 20, lr=lr)
    return policy


def logps(policy: object, seed: int = 3) -> torch.Tensor:
    """Of other rows than `learned` learns from; with seed 0 of those."""
    return policy.forward(plant(worlds.make_groups(worlds.FOREST_SHAPES["mixed"], seed=seed))).logp_M  # pyright: ignore


@pytest.mark.parametrize("name", NAMES)
def test_it_begins_as_the_model_and_only_adapters_move(name: str) -> None:
    plain, adapted = make_policy(name), make_policy(name, ADAPTED)
    torch.testing.assert_close(logps(adapted), logps(plain), rtol=1e-5, atol=1e-5)
    before = worlds.weights(adapted)
    learned(adapted)
    moved = {key for key, weight in worlds.weights(adapted).items() if not torch.equal(weight, before[key])}
    assert moved
    assert all("lora_" in key for key in moved)
    assert moved == set(adapter.trained_weights(adapted.causal.model))


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_is_the_model_without_them(name: str) -> None:
    adapted = make_policy(name, ADAPTED)
    reference = adapted.reference()
    assert isinstance(reference, WithoutAdapter)
    learned(adapted)
    torch.testing.assert_close(logps(reference), logps(make_policy(name)), rtol=1e-5, atol=1e-5)
    assert (logps(adapted) - logps(reference)).abs().max() > 0.01
    later = adapted.reference()  # of a model that has learned: a copy, adapters and all
    torch.testing.assert_close(logps(later), logps(adapted))


@pytest.mark.parametrize("name", NAMES)
def test_the_export_is_a_plain_model(name: str, tmp_path: Path) -> None:
    adapted = learned(make_policy(name, ADAPTED))
    whole = adapter.merged(adapted.causal.model)
    whole.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("adapter*"))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert not adapter.adapters(loaded)
    torch.testing.assert_close(logps(LocalPolicy(loaded, worlds.IDS)), logps(adapted), rtol=1e-4, atol=1e-4)


def test_its_own_gradients_are_those_of_the_merged_weights(tmp_path: Path) -> None:
    """dL/dB = scale dL/dW A' and dL/dA = scale B' dL/dW, from the gradient of a plain model of the same weights."""
    adapted = learned(make_policy("qwen3", ADAPTED))
    adapter.merged(adapted.causal.model).save_pretrained(tmp_path)
    plain = LocalPolicy(load_model(str(tmp_path)), worlds.IDS, LocalSettings(layout="forest"))
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
    adapted = learned(make_policy("qwen3", ADAPTED))
    (group,) = adapted.snapshot().sample([Prompt("p", (5, 6, 7), "p")], 4, Sampling(max_tokens=8), seed=1)
    forest = plant([group])
    assert (adapted.forward(forest).logp_M - forest["sampled_logp_M"]).abs().max() < 1e-4


def test_a_checkpoint_holds_the_adapter(tmp_path: Path) -> None:
    one = learned(make_policy("qwen3", ADAPTED), 2)
    one.tokenizer = worlds.make_talker().tokenizer
    one.save(tmp_path)
    other = make_policy("qwen3", ADAPTED)
    other.load(tmp_path)
    for policy in (one, other):
        learned(policy, 2)
    mine, theirs = worlds.weights(one), worlds.weights(other)
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_moments_elsewhere_are_the_same_steps(tmp_path: Path) -> None:
    """On a CPU there is nowhere else to go, so every weight must be equal to the bit, through a checkpoint too."""
    ends = []
    for offloaded in (False, True):
        policy = make_policy("qwen3", LocalSettings(offload_optimizer=offloaded, weight_decay=0.1))
        policy.tokenizer = worlds.make_talker().tokenizer
        learned(policy, 2).save(tmp_path / str(offloaded))
        other = make_policy("qwen3", LocalSettings(offload_optimizer=offloaded, weight_decay=0.1), seed=1)
        other.load(tmp_path / str(offloaded))
        before = worlds.weights(other)
        ends.append(worlds.weights(learned(other, 2, lr=1e-5)))  # another rate than before the checkpoint
        assert max(float((ends[-1][name] - before[name]).abs().max()) for name in before) < 1e-4
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


CRITICS = [
    LocalSettings(offload_optimizer=True, critic="separate"),
    replace(ADAPTED, critic="separate"),
    LocalSettings(lora=Lora(rank=3, bits=4), critic="separate"),
]


@pytest.mark.parametrize("settings", CRITICS, ids=["offloaded", "adapters", "four bits"])
def test_a_critic_goes_on_where_it_was(settings: LocalSettings, tmp_path: Path) -> None:
    worlds.make_model("qwen3").save_pretrained(tmp_path / "model")
    bits = settings.lora.bits if settings.lora else None
    made = [LocalPolicy(load_model(str(tmp_path / "model"), bits), worlds.IDS, settings, frozenset({"value"})) for _ in range(2)]
    forest = plant(worlds.make_groups(worlds.FOREST_SHAPES["mixed"]))

    def towards(number: float) -> LossFunction:
        return lambda out, _: Loss((out.value_M - number).square().mean() + 0.1 * -out.logp_M.mean())

    made[0].tokenizer = worlds.make_talker().tokenizer
    update(made[0], [(forest, towards(3.0))], 1 << 20, lr=1e-2)
    made[0].save(tmp_path / "checkpoint")
    made[1].load(tmp_path / "checkpoint")
    assert torch.load(tmp_path / "checkpoint" / "trainer.pt")["critic"].keys() == adapter.trained_weights(made[0].critic).keys()
    for policy in made:
        update(policy, [(forest, towards(2.0))], 1 << 20, lr=3e-3)
    first, second = (policy.forward(forest).value_M for policy in made)
    assert torch.equal(first, second)
    assert first.abs().max() > 0


def test_a_reference_that_follows_adapters(tmp_path: Path) -> None:
    """Beside 4 bits too; it is saved without the weights beside them, and a mixture of factors is refused."""
    policy = in_four_bits(tmp_path / "model", "qwen3")
    reference = policy.reference(syncable=True)
    begun = logps(reference)
    learned(policy)
    assert torch.equal(logps(reference), begun)
    reference.sync(1.0)
    assert torch.equal(logps(reference), logps(policy))
    followed = logps(reference)
    learned(policy)  # what is saved is the reference's, and not what the policy has become
    assert not torch.equal(logps(policy), followed)
    reference.save(tmp_path / "reference")
    other = in_four_bits(tmp_path / "model", "qwen3").reference(syncable=True)
    other.load(tmp_path / "reference")
    assert torch.equal(logps(other), followed) and torch.equal(logps(reference), followed)
    (tmp_path / "pairs.jsonl").write_text("".join(f'{{"prompt": "{n}", "chosen": "a{n}", "rejected": "b"}}\n' for n in range(4)))
    recipe = "task: {name: files, path: pairs.jsonl}\nalgorithm: dpo\npolicy: {lora: {rank: 2}}\n"
    (tmp_path / "recipe.yaml").write_text(recipe + "train: {reference: {every: 2, mix: 0.6}}\n")
    with pytest.raises(ValueError, match=r"train.reference.mix: got 0.6 with policy.lora; allowed: 1"):
        build(read_recipe(tmp_path / "recipe.yaml"))


def test_four_bits_are_not_rounded_twice(tmp_path: Path) -> None:
    """What adapters add is less than the rounding, so an export of theirs cannot be loaded in 4 bits again; nor can a road do that."""
    adapter.merged(in_four_bits(tmp_path / "model", "qwen3").causal.model).save_pretrained(tmp_path / "final")
    load_model(str(tmp_path / "final"))
    with pytest.raises(ValueError, match="beside weights in 4 bits, and rounding it again would lose"):
        load_model(str(tmp_path / "final"), bits=4)
    stage = "  - {{name: {name}, algorithm: grpo, train: {{steps: 1}}}}\n"
    road = "model: seedling\ntask: arithmetic\npolicy: {lora: {rank: 2, bits: 4}}\nstages:\n"
    (tmp_path / "road.yaml").write_text(road + stage.format(name="a") + stage.format(name="b"))
    with pytest.raises(ValueError, match=r"stage b: policy.lora.bits: the stage that it begins from has adapters beside 4 bits too"):
        check_file(tmp_path / "road.yaml")
    whole = stage.format(name="a").replace("}}\n", "}, policy: {lora: {rank: 2}}}\n")  # what this leaves has not been rounded
    (tmp_path / "once.yaml").write_text(road + whole + stage.format(name="b"))
    stages = read_stages(parse(tmp_path / "once.yaml"))
    assert [each.recipe().policy.lora == Lora(rank=2, bits=bits) for each, bits in zip(stages, (None, 4), strict=True)] == [True, True]
    for each in stages:
        weights_are_rounded_once(each, each.recipe(), stages)


@pytest.mark.parametrize("settings", [ADAPTED, None], ids=["adapters", "whole"])
def test_a_reward_model_keeps_its_scale(settings: LocalSettings | None, tmp_path: Path) -> None:
    one = make_policy("qwen3", settings, needs=frozenset({"reward"}))
    one.tokenizer = worlds.make_talker().tokenizer
    assert isinstance(one.causal, RewardModel)
    one.causal.rescale(2.0, -1.5)
    one.save(tmp_path)
    other = make_policy("qwen3", settings, needs=frozenset({"reward"}))
    other.load(tmp_path)
    forest = plant(worlds.make_groups(worlds.FOREST_SHAPES["mixed"]))
    assert torch.equal(one.forward(forest).reward_R, other.forward(forest).reward_R)


def test_what_learns_and_what_is_frozen_is_counted_apart() -> None:
    """Adapters of rank 3 on the seven matrices of two layers: 3 (in + out) each; a model without them learns whole."""
    plain, adapted = make_policy(), make_policy(settings=ADAPTED)
    whole = sum(p.numel() for p in plain.causal.model.parameters())
    inside, outside = (32, 32, 32, 32, 32, 32, 48), (32, 16, 16, 32, 48, 48, 32)  # q, k, v, o, gate, up, down
    learning = 2 * sum(3 * (a + b) for a, b in zip(inside, outside, strict=True))
    assert (plain.size.trained, plain.size.frozen) == (whole, 0)
    assert (adapted.size.trained, adapted.size.frozen) == (learning, whole)


def test_moments_in_eight_bits(tmp_path: Path) -> None:
    """They are where a tensor is large enough, the steps are nearly those of fp32, and a checkpoint keeps them to the bit."""
    ends = []
    for settings in (LocalSettings(optimizer="adamw_8bit"), LocalSettings()):
        policy = worlds.make_talker(optimizer=settings.optimizer)
        ends.append(worlds.weights(learned(policy, 3)))
        if settings.optimizer == "adamw_8bit":
            held = {state["state1"].dtype for state in policy.optimizer.state.values()}
            assert held == {torch.uint8, torch.float32}
            policy.save(tmp_path)
            other = worlds.make_talker(optimizer=settings.optimizer)
            other.load(tmp_path)
            mine, theirs = (worlds.weights(learned(each, 2)) for each in (policy, other))
            assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    far = sum(float((ends[0][name] - ends[1][name]).norm() ** 2) for name in ends[0]) ** 0.5
    begun = worlds.weights(worlds.make_talker())
    assert far < 0.1 * sum(float((ends[1][name] - begun[name]).norm() ** 2) for name in begun) ** 0.5
    with pytest.raises(ValueError, match="one of them"):
        LocalSettings(optimizer="adamw_8bit", offload_optimizer=True)


def in_four_bits(folder: Path, name: str, **settings: Any) -> LocalPolicy:
    """A model of bf16-like size in a folder, loaded with its matrices in 4 bits."""
    if not folder.exists():
        worlds.make_model(name).save_pretrained(folder)
    chosen = LocalSettings(lora=Lora(rank=3, alpha=5, bits=4), **settings)
    return LocalPolicy(load_model(str(folder), bits=4), worlds.IDS, chosen)


@pytest.mark.parametrize("name", ["qwen3", "phi3", "gpt2 dropout", "gemma2 window caps"])
def test_frozen_matrices_in_four_bits(name: str, tmp_path: Path) -> None:
    """QLoRA: it learns, the reference is what was loaded, it samples what it says, and the export is a plain model that says the same."""
    policy = in_four_bits(tmp_path / "model", name)
    assert sum(map(adapter.is_quantised, policy.causal.model.modules())) >= 2
    begun, reference = logps(policy, 0), policy.reference()
    learned(policy)
    assert logps(policy, 0).mean() > begun.mean() + 0.1
    torch.testing.assert_close(logps(reference, 0), begun)
    (group,) = policy.snapshot().sample([Prompt("p", (5, 6, 7), "p")], 4, Sampling(max_tokens=8), seed=1)
    forest = plant([group])
    assert (policy.forward(forest).logp_M - forest["sampled_logp_M"]).abs().max() < 1e-3
    adapter.merged(policy.causal.model).save_pretrained(tmp_path / "whole")
    assert "quantization_config" not in (tmp_path / "whole" / "config.json").read_text()
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "whole", dtype=torch.float32)
    assert not any(map(adapter.is_quantised, plain.modules()))
    torch.testing.assert_close(logps(LocalPolicy(plain, worlds.IDS)), logps(policy), rtol=1e-3, atol=1e-3)


def test_a_checkpoint_beside_four_bits(tmp_path: Path) -> None:
    one = learned(in_four_bits(tmp_path / "model", "qwen3"), 2)
    one.tokenizer = worlds.make_talker().tokenizer
    one.save(tmp_path / "checkpoint")
    other = in_four_bits(tmp_path / "model", "qwen3")
    other.load(tmp_path / "checkpoint")
    assert torch.equal(logps(learned(one)), logps(learned(other)))


def test_what_is_frozen_is_held_in_the_precision_of_products() -> None:
    """In bf16 half the memory, and an export in fp32 all the same."""
    policy = make_policy("qwen3", replace(ADAPTED, precision="bf16"))
    assert {module.base_layer.weight.dtype for module in adapter.adapters(policy.causal.model)} == {torch.bfloat16}
    begun = logps(policy, 0)
    assert logps(learned(policy), 0).mean() > begun.mean() + 0.1
    assert {weight.dtype for weight in adapter.merged(policy.causal.model).state_dict().values()} == {torch.float32}


def test_an_unknown_target() -> None:
    with pytest.raises(ValueError, match="q_project; this model's linear layers are down_proj, gate_proj"):
        make_policy("qwen3", LocalSettings(lora=Lora(targets=("q_project",))))


def test_an_architecture_that_cannot_have_them() -> None:
    with pytest.raises(ValueError, match=r"policy\.lora\.targets: .*out_proj.*remove it"):
        make_policy("mamba recurrent", ADAPTED)


def test_reward_models_train_their_head_too() -> None:
    policy = make_policy("qwen3", ADAPTED, needs=frozenset({"reward"}))
    trained = adapter.trained_weights(policy.causal.model)
    assert any(name.startswith("score") for name in trained)

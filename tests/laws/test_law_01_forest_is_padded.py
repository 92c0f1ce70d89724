"""Law 1: loss, every gradient and every metric equal the one-row-per-response padded computation in float64, but for the rounding of fp32
(`worlds.ROUNDING`)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import padded
import pytest
import torch
import worlds
from transformers import PreTrainedModel

from ikusei.algos import ALGORITHMS
from ikusei.backends.local import LocalPolicy, LocalSettings
from ikusei.forest import Forest, plant
from ikusei.models import adapter, logprobs
from ikusei.models.attention import ForestLayout
from ikusei.models.logprobs import Head, token_logprobs
from ikusei.protocols import Algorithm
from ikusei.types import Group

RICH = worlds.ALGORITHMS["grpo k3"]  # clips on both sides, and a reference
AS_PROBED = LocalSettings()

# padded models lay one row a response, whatever the shape of the forest
CASES = [
    (name, shape)
    for name, (layout, *_) in worlds.ARCHITECTURES.items()
    for shape in worlds.FOREST_SHAPES
    if layout == "forest" or shape == "mixed"
]


@lru_cache
def written_groups(name: str, shape: worlds.Shape) -> Sequence[Group]:
    """Groups whose log-probs are near the model's own."""
    groups = worlds.make_groups(shape)
    with torch.no_grad():
        rows = padded.plain_rows(plain(name), groups, worlds.TEMPERATURE)
    return worlds.with_logprobs(groups, [logp.tolist() for logp, _ in rows], noise=0.25)


def reference_of(name: str) -> LocalPolicy:
    return worlds.make_policy(name, LocalSettings(layout="forest" if worlds.ARCHITECTURES[name][0] == "forest" else "padded"), seed=1)


def plain(name: str, seed: int = 0, reward: bool = False) -> PreTrainedModel:
    return worlds.make_model(name, seed, "eager", reward).eval()


def like(mine: LocalPolicy, name: str, reward: bool = False) -> PreTrainedModel:
    """The policy's model made anew, with the same adapters where it has some, in peft's own forward."""
    model = plain(name, reward=reward)
    if mine.settings.lora is not None:
        adapter.adapt(model, mine.settings.lora, seed=9)
        if reward:
            model.score.requires_grad_(True)
        adapter.restore_trained(model, adapter.trained_weights(mine.causal.model))
    return model


def plain_models(name: str, algorithm: Algorithm, mine: LocalPolicy) -> padded.Plain:
    """The models of a step, made anew by transformers; a critic's weights are copied. The reference of a policy with adapters is the model
    that they were put into, else another model."""
    if "reward" in algorithm.needs:
        return padded.Plain(like(mine, name, reward=True))
    reference = plain(name, 1 if mine.settings.lora is None else 0) if "reference" in algorithm.needs else None
    before = plain("qwen3", 2) if algorithm.needs & {"value", "mismatched"} else None
    own: Any = None
    if mine.critic is not None and mine.critic.body is not None:
        own = like(mine, name).base_model
        own.load_state_dict(mine.critic.body.state_dict())
    heads = [copy.deepcopy(critic.head) if critic else None for critic in (mine.critic, worlds.bystander().critic)]
    return padded.Plain(like(mine, name), reference, before, heads[0], own, heads[1])


def assert_equals_padded(name: str, algorithm: Algorithm, groups: Sequence[Group], settings: LocalSettings = AS_PROBED) -> None:
    mine = worlds.make_policy(name, settings, needs=algorithm.needs)
    assert mine.causal.layout == (settings.layout or worlds.ARCHITECTURES[name][0])
    whole = worlds.rows_for(algorithm, groups)
    seen = worlds.step_of(algorithm, mine, whole, reference_of(name) if settings.lora is None else mine.reference())
    kept = [group for group, computed in zip(whole, seen.step.kept, strict=True) if computed]
    plain, temperature = plain_models(name, algorithm, mine), worlds.temperature_of(algorithm)
    expected, grads = padded.padded_step(plain, algorithm, kept, temperature, whole)
    worlds.assert_metrics(seen.metrics, expected)
    worlds.assert_close(seen.gradients, grads)


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_every_architecture(name: str, shape: str) -> None:
    assert_equals_padded(name, RICH, written_groups(name, worlds.FOREST_SHAPES[shape]))


def test_every_registered_algorithm_stands_under_the_laws() -> None:
    """In both lists: one that was missing could break every law in silence."""
    registered = set(ALGORITHMS.values())
    for where, kinds in (("worlds.ALGORITHMS", map(type, worlds.ALGORITHMS.values())), ("padded.LOSSES", padded.LOSSES)):
        assert {f"{kind.__module__}:{kind.__name__}" for kind in kinds} == registered, f"tests/laws, {where}"


@pytest.mark.parametrize("algorithm", worlds.ALGORITHMS)
@pytest.mark.parametrize("policy", ["as probed", "adapters"])
def test_every_algorithm(policy: str, algorithm: str) -> None:
    groups = written_groups("qwen3", worlds.FOREST_SHAPES["mixed"])
    assert_equals_padded("qwen3", worlds.ALGORITHMS[algorithm], groups, worlds.POLICIES[policy])


EACH = [(policy, name) for policy in worlds.POLICIES for name in worlds.ARCHITECTURES if policy != "as probed"]
EACH.remove(("adapters", "mamba recurrent"))  # peft refuses that: tests/test_adapter.py


@pytest.mark.parametrize(("policy", "name"), EACH)
def test_every_policy(policy: str, name: str) -> None:
    assert_equals_padded(name, RICH, written_groups(name, worlds.FOREST_SHAPES["mixed"]), worlds.POLICIES[policy])


# a head on another model, in another layout, or with a body of its own: what reads the hidden states besides the words
HEADS = [
    ("bradley terry centred, ties", "gemma2 window caps", LocalSettings()),
    ("bradley terry", "gpt2 dropout", LocalSettings(gradient_checkpointing=True)),
    ("plackett luce", "qwen3", LocalSettings(layout="padded")),
    ("ppo", "qwen3", LocalSettings(critic="separate")),
    ("ppo whitened", "gemma2 window caps", LocalSettings(critic="separate", gradient_checkpointing=True)),
    ("ppo", "lfm2 convolution", LocalSettings()),
    ("ppo whitened", "mistral window", LocalSettings(layout="padded", critic="separate")),
    ("kto", "lfm2 convolution", LocalSettings()),
    ("bradley terry", "gpt2 dropout", worlds.ADAPTED),
    ("ppo", "phi3", replace(worlds.ADAPTED, critic="separate", gradient_checkpointing=True)),
]


@pytest.mark.parametrize(("algorithm", "name", "settings"), HEADS, ids=[f"{case[0]}, {case[1]}" for case in HEADS])
def test_heads(algorithm: str, name: str, settings: LocalSettings) -> None:
    assert_equals_padded(name, worlds.ALGORITHMS[algorithm], written_groups(name, worlds.FOREST_SHAPES["many short trees"]), settings)


@pytest.mark.parametrize("kept", [0, logprobs.KEPT_LOGITS], ids=["computed again", "kept"])
@pytest.mark.parametrize("name", ["gemma2 window caps", "lfm2 convolution"])
def test_head_in_blocks(name: str, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven rows and three words at a time."""
    monkeypatch.setattr(logprobs, "BLOCK_ROWS", 7)
    monkeypatch.setattr(logprobs, "BLOCK_LOGITS", 21)
    monkeypatch.setattr(logprobs, "KEPT_LOGITS", kept)
    assert_equals_padded(name, RICH, written_groups(name, worlds.FOREST_SHAPES["many short trees"]))


def test_the_gradient_through_entropy() -> None:
    """No algorithm descends it yet; the head's own backward gives it all the same, with a bias, a scale, a cap and temperatures."""
    chance = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=chance, dtype=torch.float64)  # noqa: E731
    hidden, weight, bias = (draw(*shape).requires_grad_() for shape in ((9, 4), (13, 4), (13,)))
    target, temperature = torch.arange(9), 0.5 + torch.rand(9, generator=chance, dtype=torch.float64)

    def plainly() -> tuple[torch.Tensor, torch.Tensor]:
        logits = torch.tanh((hidden @ weight.T + bias) * 1.3 / 2) * 2
        logp = (logits / temperature[:, None]).log_softmax(-1)
        return logp[torch.arange(9), target], -(logp.exp() * logp).sum(-1)

    given = draw(9), draw(9)
    ours = token_logprobs(Head(weight.float(), bias.float(), 1.3, 2.0), hidden.float(), target, temperature.float())
    for mine, theirs in zip(ours, plainly(), strict=True):
        torch.testing.assert_close(mine, theirs.float(), rtol=1e-5, atol=1e-6)
    mine = torch.autograd.grad([ours[0] @ given[0].float(), ours[1] @ given[1].float()], [hidden, weight, bias])
    theirs = torch.autograd.grad(sum(said @ by for said, by in zip(plainly(), given, strict=True)), [hidden, weight, bias])
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_a_long_root_is_one_block() -> None:
    """The shape that is called so really takes the way of a whole tree, and the others the way of roots and leaves."""
    for name, shape in worlds.FOREST_SHAPES.items():
        forest = plant(worlds.make_groups(shape))
        widest = max(block.query.shape[1] for block in ForestLayout(forest).blocks)
        assert (widest == max(tree.size for tree in forest.trees)) == (name == "long root")


def measured(name: str) -> tuple[Forest, dict[str, float]]:
    """What the algorithm called so sees, and its metrics."""
    algorithm = worlds.ALGORITHMS[name]
    groups = worlds.rows_for(algorithm, written_groups("qwen3", worlds.FOREST_SHAPES["mixed"]))
    seen = worlds.step_of(algorithm, worlds.make_policy(needs=algorithm.needs), groups, reference_of("qwen3"))
    return seen.forest, seen.metrics


def test_the_world_is_not_symmetric() -> None:
    """Both clips act, masks have holes and weights differ, so that the comparisons above can fail."""
    groups = written_groups("qwen3", worlds.FOREST_SHAPES["mixed"])
    _, metrics = measured("grpo k3")
    assert metrics["clip_ratio/low_mean"] > 0.02
    assert metrics["clip_ratio/high_mean"] > 0.02
    assert metrics["kl"] > 0.1
    masks = [response.mask for group in groups for response in group.responses]
    assert any(mask[0] and not all(mask) for mask in masks)
    assert any(not mask[0] for mask in masks)
    assert len({group.weight for group in groups}) == len(groups)


def test_preferences_are_not_symmetric() -> None:
    """Rankings with ties, margins and labels; a group that is skipped; pairs on both sides of the hinge; a KL that is not held at 0."""
    whole = worlds.ranked(written_groups("qwen3", worlds.FOREST_SHAPES["mixed"]))
    assert 0 < sum(bool(group.pairs) for group in whole) < len(whole)
    assert any(len(set(group.tiers)) < len(group.tiers) for group in whole if group.pairs and group.tiers)
    assert len({group.margin for group in whole if group.pairs}) > 1
    forest, metrics = measured("hinge")
    assert 0 < metrics["rewards/accuracies"] < 1
    assert forest.denominators.responses > forest.num_responses
    ahead_R = 0.2 * forest.sum_R(worlds.make_policy().forward(forest).logp_M - forest["ref_logp_M"])
    margin_P = ahead_R[forest.better_P] - ahead_R[forest.worse_P]
    assert {bool(margin < 1) for margin in margin_P} == {True, False}
    forest, metrics = measured("kto")
    assert metrics["kl"] > 0.1
    assert {-1.0, 1.0} == set(forest["verdict_R"].tolist())
    _, metrics = measured("ppo whitened")
    assert min(metrics["clip_ratio/low_mean"], metrics["clip_ratio/high_mean"], metrics["clip_ratio/value"]) > 0.02
    assert metrics["clip_ratio/value"] < 0.98
    assert abs(metrics["objective/kl"]) > 0.1


def test_neighbours_leave_a_response_alone() -> None:
    """Siblings and other trees in the row do not move a log-prob."""
    groups = worlds.make_groups(worlds.FOREST_SHAPES["mixed"])
    policy = worlds.make_policy("gemma2 window caps")
    together = policy.forward(plant(groups)).logp_M
    alone = [policy.forward(plant([replace(group, responses=(r,))])).logp_M for group in groups for r in group.responses if any(r.mask)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-5)

"""Law 1: loss, every gradient and every metric equal the one-row-per-response padded computation (fp32, 1e-5 relative)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import padded
import pytest
import torch
import worlds
from transformers import PreTrainedModel

from ikusei.forest import plant
from ikusei.models import causal
from ikusei.models.attention import ForestLayout
from ikusei.protocols import Algorithm
from ikusei.types import Group

RICH = worlds.ALGORITHMS["grpo k3"]  # clips on both sides, and a reference

# padded models lay one row a response, whatever the shape of the forest
CASES = [
    (name, shape)
    for name, (layout, *_) in worlds.ARCHITECTURES.items()
    for shape in worlds.FOREST_SHAPES
    if layout == "forest" or shape == "mixed"
]


def written_groups(name: str, shape: worlds.Shape) -> list[Group]:
    """Groups whose log-probs are near the model's own."""
    groups = worlds.make_groups(shape)
    with torch.no_grad():
        rows = padded.plain_rows(plain(name), groups, worlds.TEMPERATURE)
    return worlds.with_logprobs(groups, [logp.tolist() for logp, _ in rows], noise=0.25)


def plain(name: str, seed: int = 0) -> PreTrainedModel:
    return worlds.make_model(name, seed, attention="eager").eval()


def assert_equals_padded(name: str, algorithm: Algorithm, groups: Sequence[Group], policy: str = "as probed") -> None:
    mine = worlds.make_policy(name, worlds.POLICIES[policy])
    assert mine.causal.layout == (worlds.POLICIES[policy].layout or worlds.ARCHITECTURES[name][0])
    reference = worlds.make_policy(name, seed=1)
    forest = worlds.prepared(algorithm, groups, reference)
    metrics = mine.forward_backward(forest, algorithm.loss)
    expected, grads = padded.padded_step(plain(name), plain(name, 1), algorithm, groups, worlds.TEMPERATURE)
    worlds.assert_metrics(metrics, expected)
    worlds.assert_close(worlds.gradients(mine), grads)


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_every_architecture(name: str, shape: str) -> None:
    assert_equals_padded(name, RICH, written_groups(name, worlds.FOREST_SHAPES[shape]))


@pytest.mark.parametrize("algorithm", worlds.ALGORITHMS)
def test_every_algorithm(algorithm: str) -> None:
    groups = written_groups("qwen3", worlds.FOREST_SHAPES["mixed"])
    assert_equals_padded("qwen3", worlds.ALGORITHMS[algorithm], groups)


@pytest.mark.parametrize("name", worlds.ARCHITECTURES)
@pytest.mark.parametrize("policy", [policy for policy in worlds.POLICIES if policy != "as probed"])
def test_every_policy(policy: str, name: str) -> None:
    assert_equals_padded(name, RICH, written_groups(name, worlds.FOREST_SHAPES["mixed"]), policy)


@pytest.mark.parametrize("name", ["gemma2 window caps", "lfm2 convolution"])
def test_head_in_chunks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three scored tokens at a time."""
    monkeypatch.setattr(causal, "CHUNK_LOGITS", 3 * worlds.VOCABULARY)
    assert_equals_padded(name, RICH, written_groups(name, worlds.FOREST_SHAPES["many short trees"]))


def test_chunked_head_is_not_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the test above relies on: the head never sees more rows than fit."""
    monkeypatch.setattr(causal, "CHUNK_LOGITS", 3 * worlds.VOCABULARY)
    policy, rows = worlds.make_policy(), []
    policy.causal.head.register_forward_hook(lambda module, args, out: rows.append(args[0].shape[0]))
    policy.forward(plant(worlds.make_groups(worlds.FOREST_SHAPES["mixed"])))
    assert max(rows) == 3
    assert len(rows) > 5


def test_a_long_root_is_one_block() -> None:
    """The shape that is called so really takes the way of a whole tree, and the others the way of roots and leaves."""
    for name, shape in worlds.FOREST_SHAPES.items():
        forest = plant(worlds.make_groups(shape))
        widest = max(block.query.shape[1] for block in ForestLayout(forest).blocks)
        assert (widest == max(tree.size for tree in forest.trees)) == (name == "long root")


def test_the_world_is_not_symmetric() -> None:
    """Both clips act, masks have holes and weights differ, so that the comparisons above can fail."""
    groups = written_groups("qwen3", worlds.FOREST_SHAPES["mixed"])
    metrics = worlds.make_policy().forward_backward(worlds.prepared(RICH, groups, worlds.make_policy(seed=1)), RICH.loss)
    assert metrics["clip_ratio/low_mean"] > 0.02
    assert metrics["clip_ratio/high_mean"] > 0.02
    assert metrics["kl"] > 0.1
    masks = [response.mask for group in groups for response in group.responses]
    assert any(mask[0] and not all(mask) for mask in masks)
    assert any(not mask[0] for mask in masks)
    assert len({group.weight for group in groups}) == len(groups)


def test_neighbours_leave_a_response_alone() -> None:
    """Siblings and other trees in the row do not move a log-prob."""
    groups = worlds.make_groups(worlds.FOREST_SHAPES["mixed"])
    policy = worlds.make_policy("gemma2 window caps")
    together = policy.forward(plant(groups)).logp_M
    alone = [policy.forward(plant([replace(group, responses=(r,))])).logp_M for group in groups for r in group.responses if any(r.mask)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-5)

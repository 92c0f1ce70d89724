"""Law 2: loss, gradients and metrics do not depend on micro-batch size or on the order of groups."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import padded
import pytest
import torch
import worlds

from ikusei.backends.local import LocalPolicy
from ikusei.forest import Forest, count
from ikusei.loops.precompute import along_M
from ikusei.loops.steps import update
from ikusei.protocols import Algorithm
from ikusei.types import Group

EVERYTHING = 1 << 30


@pytest.fixture(scope="module")
def groups() -> list[Group]:
    groups = worlds.make_groups(worlds.FOREST_SHAPES["mixed"], seed=3)
    with torch.no_grad():
        rows = padded.plain_rows(worlds.make_model("qwen3", attention="eager").eval(), groups, worlds.TEMPERATURE)
    return worlds.with_logprobs(groups, [logp.tolist() for logp, _ in rows], noise=0.25)


@lru_cache
def policy_for(needs: frozenset[str], policy: str = "as probed") -> LocalPolicy:
    """With a critic, or a reward model, where the algorithm needs that."""
    return worlds.make_policy(settings=replace(worlds.POLICIES[policy], layout="forest"), needs=needs & {"value", "reward"})


@pytest.fixture(scope="module")
def reference() -> LocalPolicy:
    return worlds.make_policy(seed=1)


def step(policy: LocalPolicy, algorithm: Algorithm, forest: Forest, budget: int) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """The sums over the parts of a step, as `update` makes them, without stepping."""
    metrics: Counter[str] = Counter()
    for part in forest.split(budget):
        metrics.update(policy.forward_backward(part, algorithm.loss))
    return dict(metrics), worlds.gradients(policy)


@pytest.mark.parametrize("name", worlds.ALGORITHMS)
@pytest.mark.parametrize("kind", ["as probed", "adapters"])
def test_any_part_size(kind: str, name: str, groups: Sequence[Group], reference: LocalPolicy) -> None:
    algorithm = worlds.ALGORITHMS[name]
    policy, forest = policy_for(algorithm.needs, kind), worlds.step_of(algorithm, groups, reference)
    metrics, grads = step(policy, algorithm, forest, EVERYTHING)
    for budget in (1, 9, 40):
        parts, summed = step(policy, algorithm, forest, budget)
        worlds.assert_metrics(parts, metrics)
        worlds.assert_close(summed, grads)


@pytest.mark.parametrize("name", worlds.ALGORITHMS)
def test_any_order_of_groups(name: str, groups: Sequence[Group], reference: LocalPolicy) -> None:
    """Where each group is compared with the prompt before it, the order is a ring, which may begin anywhere."""
    algorithm = worlds.ALGORITHMS[name]
    policy, whole = policy_for(algorithm.needs), worlds.judged(algorithm, groups)
    kept, totals = [group for group in whole if algorithm.keep(group)], count(whole)
    metrics, grads = step(policy, algorithm, worlds.prepared(algorithm, kept, reference, totals), EVERYTHING)
    moved = kept[2:] + kept[:2] if "mismatched" in algorithm.needs else random.Random(1).sample(kept, len(kept))
    assert moved != kept
    other, summed = step(policy, algorithm, worlds.prepared(algorithm, moved, reference, totals), 23)
    worlds.assert_metrics(other, metrics)
    worlds.assert_close(summed, grads)


@pytest.mark.parametrize("name", ["gemma2 window caps", "lfm2 convolution"])
def test_other_architectures(name: str, groups: Sequence[Group]) -> None:
    algorithm, policy = worlds.ALGORITHMS["grpo k2 sequence"], worlds.make_policy(name)
    forest = worlds.prepared(algorithm, groups, worlds.make_policy(name, seed=1))
    metrics, grads = step(policy, algorithm, forest, EVERYTHING)
    parts, summed = step(policy, algorithm, forest, 9)
    worlds.assert_metrics(parts, metrics)
    worlds.assert_close(summed, grads)


def test_the_budgets_cut_within_groups(groups: Sequence[Group], reference: LocalPolicy) -> None:
    """What the tests above rely on: a smaller budget makes more parts than there are groups, and leaves of one group part ways."""
    forest = worlds.prepared(worlds.ALGORITHMS["grpo"], groups, reference)
    sizes = [len(forest.split(budget)) for budget in (1, 9, 23, 40, EVERYTHING)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == sum(len(group.responses) for group in groups)
    assert sizes[-1] == 1
    assert len(set(sizes)) >= 4
    for name in ("dpo", "kto"):  # pairs stay together; single responses that were judged do not
        algorithm = worlds.ALGORITHMS[name]
        forest = worlds.step_of(algorithm, groups, reference)
        assert (len(forest.split(1)) == len(forest.trees)) == (name == "dpo")


def test_the_same_update(groups: Sequence[Group]) -> None:
    """Through the optimiser: the weights after two steps, and what is asked of the reference part by part."""
    algorithm, reference = worlds.ALGORITHMS["grpo k3"], worlds.make_policy(seed=1)
    ends = []
    for budget in (7, EVERYTHING):
        policy = worlds.make_policy()
        forest = worlds.prepared(algorithm, groups, reference)
        asked = along_M(reference, forest, budget)
        torch.testing.assert_close(asked, forest["ref_logp_M"], rtol=1e-5, atol=1e-5)
        for _ in range(2):
            update(policy, [(forest, algorithm.loss)], budget, lr=1e-3)
        assert policy.version == 2
        ends.append(worlds.weights(policy))
    worlds.assert_close(ends[0], ends[1])

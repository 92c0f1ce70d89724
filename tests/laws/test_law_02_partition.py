"""Law 2: loss, gradients and metrics do not depend on micro-batch size or on the order of groups."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import padded
import pytest
import torch
import worlds

from ikusei.backends.local import LocalPolicy
from ikusei.forest import plant
from ikusei.loops.precompute import along_M
from ikusei.protocols import Algorithm
from ikusei.types import Group


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


def step(policy: LocalPolicy, algorithm: Algorithm, groups: Sequence[Group], reference: LocalPolicy, budget: int) -> worlds.Seen:
    """A step of the loop in parts of this size."""
    return worlds.step_of(algorithm, policy, groups, reference, tokens_per_microbatch=budget)


def assert_same(mine: worlds.Seen, theirs: worlds.Seen) -> None:
    worlds.assert_metrics(mine.metrics, theirs.metrics)
    worlds.assert_close(mine.gradients, theirs.gradients)


@pytest.mark.parametrize("name", worlds.ALGORITHMS)
@pytest.mark.parametrize("kind", ["as probed", "adapters"])
def test_any_part_size(kind: str, name: str, groups: Sequence[Group], reference: LocalPolicy) -> None:
    algorithm = worlds.ALGORITHMS[name]
    policy, rows = policy_for(algorithm.needs, kind), worlds.rows_for(algorithm, groups)
    whole = step(policy, algorithm, rows, reference, worlds.WHOLE)
    for budget in (1, 9, 40):
        parts = step(policy, algorithm, rows, reference, budget)
        assert len(parts.forests) > 1
        assert_same(parts, whole)


@pytest.mark.parametrize("name", worlds.ALGORITHMS)
def test_any_order_of_groups(name: str, groups: Sequence[Group], reference: LocalPolicy) -> None:
    """Where each group is compared with the prompt before it, the order is a ring, which may begin anywhere."""
    algorithm = worlds.ALGORITHMS[name]
    policy, rows = policy_for(algorithm.needs), worlds.rows_for(algorithm, groups)
    moved = rows[2:] + rows[:2] if "mismatched" in algorithm.needs else random.Random(1).sample(rows, len(rows))
    assert moved != rows
    assert_same(step(policy, algorithm, moved, reference, 23), step(policy, algorithm, rows, reference, worlds.WHOLE))


@pytest.mark.parametrize("name", ["gemma2 window caps", "lfm2 convolution"])
def test_other_architectures(name: str, groups: Sequence[Group]) -> None:
    algorithm, policy, reference = worlds.ALGORITHMS["grpo k2 sequence"], worlds.make_policy(name), worlds.make_policy(name, seed=1)
    assert_same(step(policy, algorithm, groups, reference, 9), step(policy, algorithm, groups, reference, worlds.WHOLE))


def test_the_budgets_cut_within_groups(groups: Sequence[Group], reference: LocalPolicy) -> None:
    """What the tests above rely on: a smaller budget makes more parts than there are groups, and leaves of one group part ways."""
    policy = policy_for(frozenset())
    forest = step(policy, worlds.ALGORITHMS["grpo"], groups, reference, worlds.WHOLE).forest
    sizes = [len(forest.split(budget)) for budget in (1, 9, 23, 40, worlds.WHOLE)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == sum(len(group.responses) for group in groups)
    assert sizes[-1] == 1
    assert len(set(sizes)) >= 4
    for name in ("dpo", "kto"):  # pairs stay together; single responses that were judged do not
        algorithm = worlds.ALGORITHMS[name]
        forest = step(policy, algorithm, worlds.rows_for(algorithm, groups), reference, worlds.WHOLE).forest
        assert (len(forest.split(1)) == len(forest.trees)) == (name == "dpo")


def test_the_same_update(groups: Sequence[Group]) -> None:
    """Through the optimiser: the weights after two updates, and what is asked of the reference part by part."""
    algorithm, reference = worlds.ALGORITHMS["grpo k3"], worlds.make_policy(seed=1)
    ends = []
    for budget in (7, worlds.WHOLE):
        policy = worlds.make_policy()
        torch.testing.assert_close(along_M(reference, plant(groups), budget), reference.forward(plant(groups)).logp_M, rtol=1e-5, atol=1e-5)
        worlds.learn(algorithm, policy, [groups], reference, tokens_per_microbatch=budget, updates_per_step=2)
        assert policy.version == 2
        ends.append(worlds.weights(policy))
    worlds.assert_close(ends[0], ends[1])

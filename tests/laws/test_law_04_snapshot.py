"""Law 4: a snapshot that shares weights refuses to sample once the policy has stepped; a copy stays as it was; every response carries
the version that wrote it."""

from __future__ import annotations

import pytest
import worlds

from ikusei.algos.lm import LanguageModelling
from ikusei.backends.local import LocalPolicy
from ikusei.forest import plant
from ikusei.loops.update import update
from ikusei.protocols import Sampler
from ikusei.types import Group, Prompt, Sampling

PROMPTS = [Prompt(f"p{i}", tuple(range(5, 8 + i)), f"p{i}") for i in range(4)]
SAMPLING = Sampling(max_tokens=9)
LAYOUTS = ["qwen3", "lfm2 convolution", "qwen3 with adapters"]


def step(policy: LocalPolicy) -> None:
    forest = plant(worlds.make_groups(worlds.FOREST_SHAPES["mixed"]))
    update(policy, [(forest, LanguageModelling().loss)], 1 << 20, lr=1e-2)


def written(sampler: Sampler) -> list[Group]:
    return list(sampler.sample(PROMPTS, 2, SAMPLING, seed=3))


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_shared_snapshot_refuses_after_a_step(name: str) -> None:
    policy = worlds.make_policy(name)
    snapshot = policy.snapshot()
    written(snapshot)
    step(policy)
    with pytest.raises(RuntimeError, match=r"version 0 .* version 1; take a new snapshot"):
        written(snapshot)
    written(policy.snapshot())


@pytest.mark.parametrize("name", LAYOUTS)
def test_it_refuses_in_the_middle_too(name: str) -> None:
    """Groups stream out; a step between two of them is noticed before another token is written."""
    policy = worlds.make_policy(name)
    stream = policy.snapshot().sample(PROMPTS, 1, Sampling(max_tokens=20), seed=3)
    next(stream)
    step(policy)
    with pytest.raises(RuntimeError, match="take a new snapshot"):
        list(stream)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_copy_stays_as_it_was(name: str) -> None:
    policy = worlds.make_policy(name)
    copy, before = policy.snapshot(copy=True), written(policy.snapshot())
    step(policy)
    assert written(copy) == before
    assert written(policy.snapshot()) != before, "the step changed nothing, so the test shows nothing"


@pytest.mark.parametrize("sampler", worlds.SAMPLERS)
@pytest.mark.parametrize("name", LAYOUTS)
def test_responses_carry_the_version_that_wrote_them(name: str, sampler: str) -> None:
    policy = worlds.make_policy(name)
    for version in range(3):
        snapshot = worlds.SAMPLERS[sampler](policy)
        assert snapshot.version == version
        assert {response.version for group in written(snapshot) for response in group.responses} == {version}
        step(policy)


def test_a_reference_stays_as_it_was() -> None:
    policy = worlds.make_policy()
    forest = plant(worlds.make_groups(worlds.FOREST_SHAPES["mixed"]))
    reference, before = policy.reference(), policy.forward(forest).logp_M
    step(policy)
    assert (reference.forward(forest).logp_M == before).all()
    assert (policy.forward(forest).logp_M - before).abs().max() > 1e-3

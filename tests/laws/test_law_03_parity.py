"""Law 3: the sampler's log-probs equal the policy's for the same tokens (untruncated, fp32: mean 1e-5, max 1e-3), at temperature != 1,
after an update and with a shared prompt. In bf16 the gap is measured and reported."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch
import worlds

from ikusei.algos.lm import LanguageModelling
from ikusei.backends.local import LocalPolicy, LocalSettings
from ikusei.forest import plant
from ikusei.loops.update import update
from ikusei.protocols import Sampler
from ikusei.samplers.kv_cache import GROW, SHARED
from ikusei.types import Group, Prompt, Sampling

WARM = Sampling(temperature=0.8, max_tokens=30)


def prompts(count: int = 5) -> list[Prompt]:
    chance = random.Random(4)
    return [
        Prompt(f"p{i}", tuple(chance.randrange(3, worlds.VOCABULARY) for _ in range(chance.randint(1, 12))), f"p{i}") for i in range(count)
    ]


def gap(policy: LocalPolicy, sampler: Sampler, sampling: Sampling = WARM, asked: Sequence[Prompt] = ()) -> torch.Tensor:
    """How far the policy's log-probs lie from those that the sampler gave, for each token."""
    groups = list(sampler.sample(asked or prompts(), 3, sampling, seed=1))
    forest = plant(groups, temperature=sampling.temperature)
    lengths = {len(response.tokens) for group in groups for response in group.responses}
    assert len(lengths) > 1 or lengths == {sampling.max_tokens}
    return (policy.forward(forest).logp_M - forest["sampled_logp_M"]).abs()


def step(policy: LocalPolicy) -> None:
    """An update that is large enough to see."""
    groups = worlds.make_groups(worlds.FOREST_SHAPES["mixed"])
    update(policy, [(plant(groups), LanguageModelling().loss)], 1 << 20, lr=3e-3)


@pytest.mark.parametrize("sampler", worlds.SAMPLERS)
@pytest.mark.parametrize("name", worlds.ARCHITECTURES)
def test_every_architecture(name: str, sampler: str) -> None:
    policy = worlds.make_policy(name)
    step(policy)
    far = gap(policy, worlds.SAMPLERS[sampler](policy))
    assert far.mean() < 1e-5
    assert far.max() < 1e-3


@pytest.mark.parametrize("name", ["qwen3", "mistral window", "gpt2 dropout", "lfm2 convolution", "opt dropout"])
@pytest.mark.parametrize("policy", ["adapters", "checkpointing", "padded"])
def test_every_policy(policy: str, name: str) -> None:
    trained = worlds.make_policy(name, worlds.POLICIES[policy])
    step(trained)
    far = gap(trained, trained.snapshot())
    assert far.mean() < 1e-5
    assert far.max() < 1e-3


LONG = Sampling(temperature=0.8, max_tokens=GROW + 21)  # some answers end early, so that slots are closed up


@pytest.mark.parametrize("name", ["qwen3", "mistral window", "phi"])
def test_answers_that_outgrow_their_columns(name: str) -> None:
    """Keys and values are moved while answers are being written: each goes on with its own."""
    policy = worlds.make_policy(name)
    written = [len(response.tokens) for group in policy.snapshot().sample(prompts(), 3, LONG, seed=1) for response in group.responses]
    assert min(written) < GROW < max(written)
    far = gap(policy, policy.snapshot(), LONG)
    assert far.mean() < 1e-5
    assert far.max() < 1e-3


@pytest.mark.parametrize("name", ["qwen3", "llama", "mistral window", "gemma2 window caps"])
def test_prompts_that_are_looked_at_where_they_are(name: str) -> None:
    """Long ones are kept once for all of their answers; a short one between them is copied, and each where layers see a window alone."""
    policy = LocalPolicy(worlds.make_model(name, more={"max_position_embeddings": 320}), worlds.IDS)
    step(policy)
    chance = random.Random(5)
    sizes = (SHARED, 3, SHARED + 40, SHARED - 1)
    asked = [Prompt(f"p{n}", tuple(chance.randrange(3, worlds.VOCABULARY) for _ in range(n)), f"p{n}") for n in sizes]
    for slots in (64, 5):
        sampler = policy.snapshot()
        sampler.num_slots = slots
        far = gap(policy, sampler, LONG, asked)
        assert far.mean() < 1e-5
        assert far.max() < 1e-3


def test_temperature_counts() -> None:
    """The same tokens at another temperature are far off: what the tests above compare is not blind to it."""
    policy = worlds.make_policy()
    groups = list(policy.snapshot().sample(prompts(), 3, WARM, seed=1))
    forest = plant(groups, temperature=1.0)
    assert (policy.forward(forest).logp_M - forest["sampled_logp_M"]).abs().mean() > 0.05


def test_an_update_counts() -> None:
    """What a snapshot wrote before a step is not what the policy says after it."""
    policy = worlds.make_policy()
    groups = list(policy.snapshot().sample(prompts(), 3, WARM, seed=1))
    step(policy)
    forest = plant(groups, temperature=WARM.temperature)
    assert (policy.forward(forest).logp_M - forest["sampled_logp_M"]).abs().mean() > 1e-3


def test_the_sampler_writes_what_the_plain_model_would() -> None:
    """Token by token, without any of our attention: the likeliest word each time."""
    policy = worlds.make_policy("gemma2 window caps")
    groups: list[Group] = list(policy.snapshot().sample(prompts(2), 1, Sampling(top_k=1, max_tokens=12), seed=0))
    plain = worlds.make_model("gemma2 window caps", attention="eager").eval()
    for group in groups:
        tokens = list(group.prompt.tokens)
        for token in group.responses[0].tokens:
            with torch.no_grad():
                assert token == int(plain(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1].argmax())
            tokens.append(token)


@pytest.mark.parametrize("name", ["qwen3", "gemma2 window caps", "lfm2 convolution"])
def test_bf16_gap_is_measured(name: str) -> None:
    policy, exact = worlds.make_policy(name, LocalSettings(precision="bf16")), worlds.make_policy(name)
    forest = plant(worlds.make_groups(worlds.FOREST_SHAPES["mixed"]))
    coarse = (policy.forward(forest).logp_M - exact.forward(forest).logp_M).abs().mean()
    assert coarse > 1e-4, "this computes in fp32, so the gap below says nothing"
    step(policy)
    far = gap(policy, policy.snapshot())
    print(f"bf16 {name}: sampler to policy mean {far.mean():.2g}, max {far.max():.2g}; bf16 to fp32 mean {coarse:.2g} nats")
    assert torch.isfinite(far).all()
    assert far.mean() < 0.05

"""Law 5: the random numbers of a response depend on (seed, prompt id, sample index, position) alone, not on slots, order or neighbours."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
import worlds

from ikusei.backends.local import LocalPolicy
from ikusei.samplers.draw import response_seed, uniforms
from ikusei.types import Prompt, Response, Sampling

ARCHITECTURES = ["qwen3", "mistral window", "gpt2 dropout", "lfm2 convolution", "qwen3 with adapters"]
SAMPLING = Sampling(temperature=0.9, max_tokens=25, stop_ids=tuple(range(3, 11)))  # so that lengths differ
Written = dict[str, tuple[Response, ...]]


def some_prompts(count: int, seed: int = 0) -> list[Prompt]:
    chance = random.Random(seed)
    lengths = [chance.randint(1, 20) for _ in range(count)]
    return [
        Prompt(f"{seed}/{i}", tuple(chance.randrange(3, worlds.VOCABULARY) for _ in range(n)), f"prompt {i}") for i, n in enumerate(lengths)
    ]


PROMPTS = some_prompts(7)


def write(policy: LocalPolicy, prompts: Sequence[Prompt], num: int = 5, slots: int = 64, seed: int = 11) -> Written:
    sampler = policy.snapshot()
    sampler.num_slots = slots
    groups = list(sampler.sample(prompts, num, SAMPLING, seed))
    assert [len(group.responses) for group in groups] == [num] * len(prompts)
    return {group.prompt.id: group.responses for group in groups}


def same(mine: Sequence[Response], theirs: Sequence[Response]) -> bool:
    """The same tokens, ends and seeds. Log-probs agree to rounding, since the batches that computed them differ."""
    drop = lambda responses: [replace(r, logprobs=None) for r in responses]  # noqa: E731
    close = all(abs(a - b) < 1e-4 for x, y in zip(mine, theirs, strict=True) for a, b in zip(x.logprobs or (), y.logprobs or ()))
    return drop(mine) == drop(theirs) and close


@pytest.fixture(scope="module", params=ARCHITECTURES)
def policy(request: pytest.FixtureRequest) -> LocalPolicy:
    return worlds.make_policy(request.param)


@pytest.fixture(scope="module")
def usual(policy: LocalPolicy) -> Written:
    written = write(policy, PROMPTS)
    lengths = {len(response.tokens) for responses in written.values() for response in responses}
    assert len(lengths) > 3, "responses that all end together do not try the slots"
    return written


@pytest.mark.parametrize("slots", [1, 3, 8])
def test_slots(policy: LocalPolicy, usual: Written, slots: int) -> None:
    other = write(policy, PROMPTS, slots=slots)
    assert all(same(usual[prompt.id], other[prompt.id]) for prompt in PROMPTS)


def test_order(policy: LocalPolicy, usual: Written) -> None:
    other = write(policy, PROMPTS[::-1], slots=4)
    assert all(same(usual[prompt.id], other[prompt.id]) for prompt in PROMPTS)


def test_neighbours(policy: LocalPolicy, usual: Written) -> None:
    other = write(policy, [*some_prompts(3, seed=1), PROMPTS[4], *some_prompts(2, seed=2), PROMPTS[1]], slots=5)
    assert same(usual[PROMPTS[4].id], other[PROMPTS[4].id])
    assert same(usual[PROMPTS[1].id], other[PROMPTS[1].id])


@pytest.mark.parametrize("num", [1, 3, 9])
def test_fewer_or_more_answers(policy: LocalPolicy, usual: Written, num: int) -> None:
    """The first answers are the same ones."""
    other = write(policy, PROMPTS, num=num)
    assert all(same(usual[prompt.id][:num], other[prompt.id][:5]) for prompt in PROMPTS)


def test_what_is_asked_in_the_prompt_matters_and_its_name_too(policy: LocalPolicy, usual: Written) -> None:
    """Same tokens under another id: other numbers. Same id under another seed: other numbers."""
    renamed = replace(PROMPTS[0], id="another")
    assert not same(usual[PROMPTS[0].id], write(policy, [renamed])["another"])
    assert not same(usual[PROMPTS[0].id], write(policy, PROMPTS[:1], seed=12)[PROMPTS[0].id])


def test_answers_to_one_prompt_differ(usual: Written) -> None:
    for responses in usual.values():
        assert len({response.seed for response in responses}) == len(responses)
        assert len({response.tokens for response in responses}) > 1


@pytest.mark.parametrize("name", ["qwen3", "lfm2 convolution"])
def test_a_prompt_asked_twice_is_answered_anew(name: str) -> None:
    """A small data set wraps round within a step, and two rows may ask the same."""
    groups = list(worlds.make_policy(name).snapshot().sample([PROMPTS[0], PROMPTS[1], PROMPTS[0]], 4, SAMPLING, seed=1))
    twice = [response for group in groups if group.prompt.id == PROMPTS[0].id for response in group.responses]
    assert len(twice) == 8
    assert len({response.seed for response in twice}) == 8
    assert len({response.tokens for response in twice}) > 4


def test_numbers_of_a_response() -> None:
    """Number t does not depend on how many are asked for; seeds differ in each of their three parts."""
    assert uniforms(7, 100)[:10].tolist() == uniforms(7, 10).tolist()
    assert uniforms(7, 10).tolist() != uniforms(8, 10).tolist()
    parts = [(seed, name, index) for seed in (0, 1, 10) for name in ("a", "b", "0/a") for index in (0, 1, 10)]
    assert len({response_seed(*each) for each in parts}) == len(parts)
    drawn = uniforms(response_seed(0, "a", 0), 100_000)
    assert float(drawn.min()) >= 0
    assert abs(float(drawn.mean()) - 0.5) < 0.005

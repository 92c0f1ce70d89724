"""The two doors: for the same model, prompts, answers and rewards, the tour's plain padded code and the library give the same gradient."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from random import Random
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from ikusei.algos.grpo import GRPO
from ikusei.algos.lm import LanguageModelling
from ikusei.backends.local import LocalPolicy
from ikusei.forest import plant
from ikusei.tasks import held_out
from ikusei.tasks.arithmetic import demonstrate
from ikusei.text.tokenizer import make_character_tokenizer
from ikusei.types import Group, Prompt, Response, Score

TOUR = Path(__file__).parents[1] / "tour"
PROMPT_LENGTHS = (3, 11, 6)
ANSWER_LENGTHS = ((1, 17, 5, 8), (9, 2, 4, 23), (7, 7, 12, 1))
REWARDS = ((1.0, 0.0, 0.25, -0.5), (0.0, 3.0, 0.0, 0.0), (0.7, 0.7, 0.7, 0.7))  # nothing is to be learned from the last


def tour(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"tour_{name}", TOUR / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def model() -> PreTrainedModel:
    """A Llama like the seedling, smaller; its weights are spread so that attention is not nearly uniform."""
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=len(make_character_tokenizer()),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.2,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval()


def tokens(chance: Random, count: int) -> list[int]:
    return [chance.randrange(5, 400) for _ in range(count)]


def gradients(model: PreTrainedModel, backward: Callable[[], object]) -> dict[str, Tensor]:
    model.zero_grad()
    backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


def assert_equal(plain: dict[str, Tensor], ours: dict[str, Tensor], model: nn.Module) -> None:
    """Every parameter's gradient, to 1e-5 of its own size."""
    assert plain.keys() == ours.keys() == {name for name, _ in model.named_parameters()}
    gaps = {name: float((plain[name] - ours[name]).norm() / plain[name].norm()) for name in plain}
    assert max(gaps.values()) < 1e-5, gaps


def test_grpo_has_the_gradient_of_the_library(model: PreTrainedModel) -> None:
    grpo, chance = tour("grpo"), Random(5)
    prompts = [tokens(chance, length) for length in PROMPT_LENGTHS]
    samples = [
        grpo.Sample(prompt, tokens(chance, length), []) for prompt, row in zip(prompts, ANSWER_LENGTHS, strict=True) for length in row
    ]
    for sample in samples:  # as an older policy, on either side of the clip, would have written them
        sample.logp.extend(now + chance.gauss(0.1, 0.4) for now in plain_logp(model, sample))
    groups = [group(samples[4 * g : 4 * g + 4], REWARDS[g]) for g in range(3)]
    rows = grpo.batch(samples, torch.tensor(REWARDS))
    plain = gradients(model, lambda: grpo.loss(model, **rows).backward())
    value = grpo.loss(model, **rows).item()

    policy, algorithm = LocalPolicy(model, make_character_tokenizer()), GRPO()
    forest = plant(groups)
    forest = forest.with_streams({"old_logp_M": forest["sampled_logp_M"], **algorithm.credit(groups, forest, {})})
    metrics: dict[str, float] = {}
    ours = gradients(model, lambda: metrics.update(policy.forward_backward(forest, algorithm.loss)))

    assert_equal(plain, ours, model)
    assert metrics["loss"] == pytest.approx(value, rel=1e-5)
    assert metrics["clip_ratio/low_mean"] > 0.02 and metrics["clip_ratio/high_mean"] > 0.02  # both bounds were at work


def test_sft_has_the_gradient_of_the_library(model: PreTrainedModel) -> None:
    sft, chance = tour("sft"), Random(6)
    prompts = [tokens(chance, length) for length in PROMPT_LENGTHS]
    answers = [tokens(chance, length) for length in (14, 1, 5)]
    rows = sft.batch(prompts, answers)
    plain = gradients(model, lambda: sft.loss(model, **rows).backward())
    value = sft.loss(model, **rows).item()

    policy = LocalPolicy(model, make_character_tokenizer())
    forest = plant([
        Group(Prompt(str(i), tuple(prompt), ""), (Response(tuple(answer), (True,) * len(answer), ""),))
        for i, (prompt, answer) in enumerate(zip(prompts, answers, strict=True))
    ])  # fmt: skip
    metrics: dict[str, float] = {}
    ours = gradients(model, lambda: metrics.update(policy.forward_backward(forest, LanguageModelling().loss)))

    assert_equal(plain, ours, model)
    assert metrics["loss"] == pytest.approx(value, rel=1e-5)


def test_the_sampler_says_the_log_probs_of_what_it_wrote(model: PreTrainedModel) -> None:
    grpo, end = tour("grpo"), 2
    with torch.no_grad():
        model.get_parameter("model.embed_tokens.weight")[end] *= 3  # so that some answers end early, and leave
    torch.manual_seed(0)
    samples = grpo.sample(model, [tokens(Random(i), 1 + 5 * (i % 3)) for i in range(24)], end)
    lengths = {len(sample.answer) for sample in samples}
    assert len(lengths) > 3 and max(lengths) <= grpo.MAX_TOKENS
    for sample in samples:
        assert end not in sample.answer[:-1]
        assert sample.logp == pytest.approx(plain_logp(model, sample), abs=1e-4)


def test_the_tour_asks_and_shows_what_the_library_does() -> None:
    grpo, sft = tour("grpo"), tour("sft")
    for test in (True, False):
        questions = grpo.sums(Random(2), 50, test)
        pairs = sft.sums(Random(2), 50, test)
        assert [question for question, _ in questions] == [f"{a}+{b}=" for a, b in pairs]
        assert all(held_out(question) == test and right == str(a + b) for (question, right), (a, b) in zip(questions, pairs, strict=True))
        assert [sft.worked(a, b) for a, b in pairs] == [demonstrate("worked", f"{a}+{b}=", Random(0)) for a, b in pairs]


def test_only_the_right_answer_after_the_thought_is_rewarded() -> None:
    reward = tour("grpo").reward
    assert reward("<think>3+4=7</think>7", "7") == reward("7", "7") == 1.0
    assert reward("<think>7", "7") == reward("<think>7</think>8", "7") == reward("<think></think>77", "7") == 0.0


def plain_logp(model: PreTrainedModel, sample: tuple[list[int], list[int], list[float]]) -> list[float]:
    """One row at a time, nothing padded and nothing cached."""
    prompt, answer, _ = sample
    with torch.no_grad():
        logp = model(input_ids=torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
    return [float(logp[len(prompt) + t - 1, token]) for t, token in enumerate(answer)]


def group(samples: list[tuple[list[int], list[int], list[float]]], rewards: tuple[float, ...]) -> Group:
    responses = tuple(
        Response(tuple(answer), (True,) * len(answer), "", logprobs=tuple(logp), score=Score(reward))
        for (_, answer, logp), reward in zip(samples, rewards, strict=True)
    )
    return Group(Prompt(str(samples[0][0]), tuple(samples[0][0]), ""), responses)

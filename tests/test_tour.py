"""The two doors: for the same model, prompts, answers and rewards, the tour's plain padded code and the library give the same gradient."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedModel

from ikusei.algos.bradley_terry import BradleyTerry
from ikusei.algos.dpo import DPO
from ikusei.algos.grpo import GRPO
from ikusei.algos.lm import LanguageModelling
from ikusei.algos.ppo import PPO
from ikusei.backends.local import LocalPolicy
from ikusei.forest import plant
from ikusei.protocols import credited, first_state
from ikusei.tasks import held_out
from ikusei.tasks.arithmetic import demonstrate
from ikusei.tasks.cat_lover import ANIMALS, CATS, speak, verdict
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
def config() -> LlamaConfig:
    """A Llama like the seedling, smaller; its weights are spread so that attention is not nearly uniform."""
    torch.manual_seed(3)
    return LlamaConfig(
        vocab_size=len(make_character_tokenizer()),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.2,
        tie_word_embeddings=True,
        pad_token_id=0,
        id2label={0: "reward"},
    )


@pytest.fixture
def model(config: LlamaConfig) -> PreTrainedModel:
    return LlamaForCausalLM(config).eval()


def tokens(chance: Random, count: int) -> list[int]:
    return [chance.randrange(5, 400) for _ in range(count)]


def gradients(model: nn.Module, backward: Callable[[], object]) -> dict[str, Tensor]:
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


def test_dpo_has_the_gradient_of_the_library(model: PreTrainedModel) -> None:
    dpo, chance = tour("dpo"), Random(7)
    prompts = [tokens(chance, length) for length in PROMPT_LENGTHS]
    tries = [[dpo.Attempt(prompt, tokens(chance, n), right) for n, right in ((a, True), (b, False))]
             for prompt, (a, b, *_) in zip(prompts, ANSWER_LENGTHS, strict=True)]  # fmt: skip
    ref = [[[now + chance.gauss(0.3 - each.right, 1.0) for now in plain_logp(model, each)] for each in pair] for pair in tries]
    rows = dpo.batch([(chosen, rejected) for chosen, rejected in tries])
    rows["ref_logp"] = torch.tensor([sum(logp[side]) for side in (0, 1) for logp in ref])
    plain = gradients(model, lambda: dpo.loss(model, **rows).backward())
    value = dpo.loss(model, **rows).item()

    policy, algorithm = LocalPolicy(model, make_character_tokenizer()), DPO(beta=dpo.BETA, nll_coef=dpo.NLL)
    forest = plant([ranked(prompt, [each.answer for each in pair], (0, 1)) for prompt, pair in zip(prompts, tries, strict=True)])
    forest = forest.with_streams({"ref_logp_M": torch.tensor([logp for pair in ref for row in pair for logp in row])})
    metrics: dict[str, float] = {}
    ours = gradients(model, lambda: metrics.update(policy.forward_backward(forest, algorithm.loss)))

    assert_equal(plain, ours, model)
    assert metrics["loss"] == pytest.approx(value, rel=1e-5)
    assert metrics["rewards/margins"] != pytest.approx(0, abs=0.01)  # the reference is another


def test_the_reward_model_has_the_gradient_of_the_library(config: LlamaConfig) -> None:
    ranking, chance, judge = tour("reward_model"), Random(8), LlamaForSequenceClassification(config).eval()
    prompts = [tokens(chance, length) for length in PROMPT_LENGTHS]
    answers = [[tokens(chance, length) for length in row] for row in ANSWER_LENGTHS]
    likes = [[1, -1, 0, 2], [0, 2, 0, 0], [1, 1, -2, -2]]  # six pairs, three, four: each ranking counts the same
    rows = ranking.batch([ranking.Ranking([p + a for a in each], like) for p, each, like in zip(prompts, answers, likes, strict=True)])
    plain = gradients(judge, lambda: ranking.loss(judge.base_model, judge.score, **rows)[0].backward())
    value, right = ranking.loss(judge.base_model, judge.score, **rows)

    policy, algorithm = LocalPolicy(judge, make_character_tokenizer(), needs=frozenset({"reward"})), BradleyTerry()
    groups = [ranked(p, each, [-like for like in row]) for p, each, row in zip(prompts, answers, likes, strict=True)]
    forest = plant(groups)
    forest = forest.with_streams(algorithm.credit(groups, forest, {}))
    metrics: dict[str, float] = {}
    ours = gradients(judge, lambda: metrics.update(policy.forward_backward(forest, algorithm.loss)))

    assert_equal(plain, ours, judge)
    assert metrics["loss"] == pytest.approx(value.item(), rel=1e-5)
    assert metrics["accuracy"] == pytest.approx(right.item()) and 0 < right < 1


def test_ppo_has_the_credit_and_the_gradient_of_the_library(model: PreTrainedModel) -> None:
    ppo, chance = tour("ppo"), Random(9)
    prompts = [prompt for length in PROMPT_LENGTHS for prompt in [tokens(chance, length)] * 4]
    answers = [tokens(chance, length) for row in ANSWER_LENGTHS for length in row]
    score = torch.tensor([-1.0 if i % 5 == 0 else total for i, total in enumerate(total for row in REWARDS for total in row)])
    now = [plain_logp(model, (prompt, answer, [])) for prompt, answer in zip(prompts, answers, strict=True)]
    old, ref = ([[logp + chance.gauss(0.1, 0.4) for logp in row] for row in now] for _ in range(2))
    guess = [[chance.gauss(0.2, 0.5) for _ in row] for row in answers]
    algorithm = PPO(clip=ppo.CLIP, clip_value=ppo.CLIP, vf_coef=ppo.CRITIC, gae_lambda=ppo.LAMBDA, kl_coef=ppo.KL, missing_eos_score=-1.0)
    critic = nn.Linear(32, 1)
    trained = nn.ModuleDict({"model": model, "critic": nn.ModuleDict({"head": critic})})

    rows = ppo.batch(prompts, answers)
    along = lambda table: torch.zeros_like(rows["written"]).masked_scatter(rows["written"].bool(), flat(table))  # noqa: E731
    rows |= ppo.credit(rows["written"], along(old), along(ref), along(guess), score)
    plain = gradients(trained, lambda: ppo.loss(model, critic, **rows).backward())
    value = ppo.loss(model, critic, **rows).item()

    policy = LocalPolicy(model, make_character_tokenizer(), needs=frozenset({"value"}))
    assert policy.critic
    policy.critic.head.load_state_dict(critic.state_dict())
    scored = list(zip(zip(prompts, answers, old, strict=True), score.tolist(), strict=True))
    groups = [group([row for row, _ in scored[g : g + 4]], tuple(total for _, total in scored[g : g + 4])) for g in (0, 4, 8)]
    groups = [replace(each, responses=tuple(ended(r, r.total != -1.0) for r in each.responses)) for each in groups]
    forest = plant(groups).with_streams({"old_logp_M": flat(old), "ref_logp_M": flat(ref), "old_value_M": flat(guess)})
    forest = credited(algorithm, groups, forest, first_state(algorithm))
    for name, stream in (("advantage", "advantage_M"), ("target", "return_M")):
        torch.testing.assert_close(rows[name][rows["written"].bool()], forest[stream], rtol=1e-5, atol=1e-5)
    metrics: dict[str, float] = {}
    ours = gradients(policy.trained, lambda: metrics.update(policy.forward_backward(forest, algorithm.loss)))

    assert_equal(plain, ours, policy.trained)
    assert metrics["loss"] == pytest.approx(value, rel=1e-5)
    assert all(metrics[f"clip_ratio/{name}"] > 0.02 for name in ("low_mean", "high_mean", "value"))  # every clip was at work


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


def test_a_pair_is_a_right_and_a_wrong_answer_to_one_question() -> None:
    dpo = tour("dpo")
    tries = [[dpo.Attempt([q], [q, t], (q, t) in {(0, 1), (2, 0), (2, 1), (2, 2), (3, 2), (3, 0)}) for q in range(4)] for t in range(3)]
    pairs = dpo.pairs_of(tries, Random(0))
    assert [(chosen.prompt, rejected.prompt) for chosen, rejected in pairs] == [([0], [0]), ([3], [3])]
    assert all(chosen.right and not rejected.right for chosen, rejected in pairs)


def test_the_cat_lover_of_the_tour_has_the_taste_of_the_library() -> None:
    ranking, chance = tour("reward_model"), Random(0)
    assert set(ranking.CATS) == set(CATS)
    for animal in ANIMALS * 40:
        for sign, tone in ((1, "kind"), (-1, "unkind")):
            sentence = speak(chance, tone, animal)  # pyright: ignore[reportArgumentType]
            liked = ranking.taste(sentence)
            assert (liked > 0) == (verdict(sentence) == "desirable") and (liked != 0) == (animal in CATS) and liked * sign >= 0, sentence
    assert ranking.taste("ねこはとてもかわいい。") > ranking.taste("ねこはかわいい。") > ranking.taste("ねこはこわい。")


SMALL = {
    "grpo": {"STEPS": 1, "QUESTIONS": 2, "ANSWERS": 4, "MAX_TOKENS": 40},
    "sft": {"STEPS": 1, "ROWS": 4, "MAX_TOKENS": 40},
    "dpo": {"QUESTIONS": 16, "ANSWERS": 4, "EPOCHS": 1, "PAIRS": 4, "MAX_TOKENS": 40},
    "ppo": {"STEPS": 1, "QUESTIONS": 8, "MAX_TOKENS": 40},
    "reward_model": {"CATS": ("ねこ",), "GREETINGS": ("", "あの、"), "HELD_OUT": 4, "RANKINGS": 4, "EPOCHS": 1, "MAX_TOKENS": 30},
}


@pytest.mark.parametrize("name", SMALL)
def test_each_program_runs(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """From end to end on the seedling, with small numbers."""
    program = tour(name)
    for constant, value in SMALL[name].items():
        assert constant in vars(program)
        monkeypatch.setattr(program, constant, value)
    if name != "reward_model":
        sums = program.sums
        monkeypatch.setattr(program, "sums", lambda chance, count, test: sums(chance, min(count, 16), test))
    program.main()
    said = capsys.readouterr().out
    before, after = (line for line in said.splitlines() if "held-out" in line)
    assert said.index(before) < said.index("step  1") < said.index(after)
    assert "nan" not in said


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


def ranked(prompt: list[int], answers: Sequence[list[int]], tiers: Sequence[int]) -> Group:
    responses = tuple(Response(tuple(answer), (True,) * len(answer), "") for answer in answers)
    return Group(Prompt(str(prompt), tuple(prompt), ""), responses, tiers=tuple(tiers))


def ended(response: Response, yes: bool) -> Response:
    """One that did not end has a total of its own, which is not to count."""
    return replace(response, stop="eos") if yes else replace(response, stop="length", score=Score(0.4))


def flat(table: Sequence[Sequence[float]]) -> Tensor:
    return torch.tensor([number for row in table for number in row])

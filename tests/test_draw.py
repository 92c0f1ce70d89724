"""Drawing: the distribution is the one asked for, truncations are exact, and a response says rightly why it ended."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from scipy.stats import chisquare
from transformers import AutoConfig, AutoModelForCausalLM

from ikusei.backends.local import LocalPolicy, LocalSettings
from ikusei.samplers.decoding import DecodingBatch, Job
from ikusei.samplers.draw import draw, truncate, uniforms
from ikusei.text.tokenizer import make_character_tokenizer
from ikusei.types import Prompt, Response, Sampling

LOGITS = torch.tensor([2.0, -1.0, 0.5, 1.0, -3.0, 0.0])
HOLES = torch.tensor([-math.inf, 2.0, -math.inf, 0.5, 1.0, -math.inf])


def drawn(logits: torch.Tensor, sampling: Sampling, count: int = 40_000, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """How often each word came, and the log-prob that was said of it."""
    tokens, logp = draw(logits.expand(count, -1), uniforms(seed, count), sampling)
    said = torch.full_like(logits, -math.inf)
    said[tokens] = logp
    return torch.bincount(tokens, minlength=len(logits)), said


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_the_distribution_is_softmax(temperature: float) -> None:
    counts, said = drawn(LOGITS, Sampling(temperature=temperature))
    p = (LOGITS.double() / temperature).softmax(-1)
    assert chisquare(counts.numpy(), (p * counts.sum()).numpy()).pvalue > 1e-3
    torch.testing.assert_close(said, p.log().float(), rtol=1e-5, atol=1e-5)
    wrong = (LOGITS.double() / (temperature * 1.1)).softmax(-1)
    assert chisquare(counts.numpy(), (wrong * counts.sum()).numpy()).pvalue < 1e-3


# LOGITS at temperature 1: 0.561, 0.028, 0.125, 0.206, 0.004, 0.076; from the likeliest word down 0, 3, 2, 5, 1, 4
KEPT = {
    "top_k 1": (Sampling(top_k=1), {0}),
    "top_k 3": (Sampling(top_k=3), {0, 3, 2}),
    "top_k of more than there are": (Sampling(top_k=99), {0, 1, 2, 3, 4, 5}),
    "top_p below the first": (Sampling(top_p=0.4), {0}),
    "top_p": (Sampling(top_p=0.7), {0, 3}),
    "top_p just below two words": (Sampling(top_p=0.765), {0, 3}),
    "top_p just above two words": (Sampling(top_p=0.769), {0, 3, 2}),
    "top_p almost whole": (Sampling(top_p=0.997), {0, 1, 2, 3, 4, 5}),
    "min_p": (Sampling(min_p=0.2), {0, 3, 2}),
    "min_p a little more": (Sampling(min_p=0.23), {0, 3}),
    "top_k then top_p": (Sampling(top_k=2, top_p=0.75), {0, 3}),  # of the two that are left the first has 0.73
    "top_k then top_p, less": (Sampling(top_k=2, top_p=0.72), {0}),
    "cold top_p": (Sampling(temperature=0.5, top_p=0.8), {0}),  # 0.83 at this temperature
    "hot min_p": (Sampling(temperature=2.0, min_p=0.4), {0, 3, 2}),  # 0.61 and 0.47 of the first, then 0.37
}


@pytest.mark.parametrize("name", KEPT)
def test_truncation_keeps_exactly_these(name: str) -> None:
    sampling, kept = KEPT[name]
    counts, said = drawn(LOGITS, sampling)
    assert set(counts.nonzero().flatten().tolist()) == kept
    p = (LOGITS.double() / sampling.temperature).softmax(-1)
    share = torch.tensor([float(p[i] / p[list(kept)].sum()) if i in kept else 0.0 for i in range(len(p))])
    torch.testing.assert_close(said.exp(), share, rtol=1e-4, atol=1e-6)
    assert float(said.exp().sum()) == pytest.approx(1, abs=1e-5)
    if len(kept) > 1:
        chosen = sorted(kept)
        expected = share[chosen].double()
        assert chisquare(counts[chosen].numpy(), (expected / expected.sum() * counts.sum()).numpy()).pvalue > 1e-3


def test_each_row_is_cut_by_itself() -> None:
    rows = torch.stack([LOGITS, LOGITS.flip(0), 3 * LOGITS]).softmax(-1)
    for sampling in (Sampling(top_k=2), Sampling(top_p=0.9), Sampling(min_p=0.1), Sampling(top_k=4, top_p=0.9, min_p=0.05)):
        together = truncate(rows, sampling)
        alone = torch.cat([truncate(row[None], sampling) for row in rows])
        assert torch.equal(together, alone)
        assert (together == 0).any()


def test_words_without_probability_are_never_drawn() -> None:
    """Not even by the smallest and the largest number that can come, at either end of the vocabulary."""
    edge = torch.tensor([0.0, 1.0, 1 - 2**-24, 2**-30, 0.5])
    for logits in (HOLES, HOLES.flip(0), HOLES - 40, HOLES * 50):
        tokens, logp = draw(logits.expand(len(edge), -1), edge, Sampling())
        assert torch.isfinite(logits[tokens]).all()
        assert torch.isfinite(logp).all()
    counts, _ = drawn(HOLES, Sampling())
    assert counts[torch.isinf(HOLES)].sum() == 0
    assert (counts[torch.isfinite(HOLES)] > 0).all()


def test_a_large_vocabulary() -> None:
    """151,936 words: the cumulative sum still ends where the mass does, and the last word can be drawn."""
    torch.manual_seed(0)
    logits = torch.randn(1, 151_936)
    logits[0, -1] = logits.logsumexp(-1)  # half of all
    counts, said = drawn(logits[0], Sampling(), count=200)
    assert 60 < int(counts[-1]) < 140
    assert float(said[-1].exp()) == pytest.approx(0.5, abs=1e-3)


@pytest.fixture(scope="module")
def policy() -> LocalPolicy:
    tokenizer = make_character_tokenizer("abc0123456789 ねこ")
    config = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
    ids = {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id, "bos_token_id": 1, "pad_token_id": 0}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **config, **ids, max_position_embeddings=40))
    return LocalPolicy(model, tokenizer, LocalSettings(layout="forest"))


def end_of(policy: LocalPolicy) -> int:
    end = policy.tokenizer.eos_token_id
    assert isinstance(end, int)
    return end


def written(policy: LocalPolicy, sampling: Sampling, num: int = 200, prompt_tokens: int = 3) -> list[Response]:
    prompt = Prompt("p", (7,) * prompt_tokens, "a" * prompt_tokens)
    (group,) = policy.snapshot().sample([prompt], num, sampling, seed=0)
    return list(group.responses)


def spoken(policy: LocalPolicy, tokens: list[int], stop: tuple[str, ...]) -> Response:
    """The response of a model that is sure of each of these tokens in turn."""
    sampling = Sampling(max_tokens=len(tokens), stop=stop)
    decoding = DecodingBatch(sampling, frozenset({end_of(policy)}), policy.tokenizer, torch.device("cpu"))
    decoding.arrange((), [Job(0, 0, 4, 1), Job(0, 0, 5, len(tokens))])
    for token in tokens:
        decoding.write(0, torch.full((2, len(policy.tokenizer)), -1e4).index_fill(1, torch.tensor([token]), 0.0))
        if 1 in decoding.ended():
            break
    _, response = decoding.close(1, version=3)
    return response


STOPS = {  # what is written, the stop strings, what is left of it; ^ is a special token, which is no text
    "one token": ("bca0", ("a",), "bca"),
    "two tokens": ("0011 2", ("01", "2"), "001"),
    "the shorter one comes first": ("abc", ("abc", "b"), "ab"),
    "not yet": ("0101010", ("00", "11"), "0101010"),
    "long": ("a123456789b", ("123456789",), "a123456789"),
    "characters of several bytes": ("ねabねこね", ("ねこ",), "ねabねこ"),
    "a character that is no token": ("ab犬12", ("犬",), "ab犬"),
    "behind a special token": ("1^2^3", ("12",), "1^2"),
    "only part of it": ("ねあ", ("ねこ",), "ねあ"),
}


@pytest.mark.parametrize("name", STOPS)
def test_a_stop_string_ends_at_the_token_that_completes_it(name: str, policy: LocalPolicy) -> None:
    said, stop, left = STOPS[name]
    encode = lambda text: policy.tokenizer.encode(text.replace("^", "<|user|>"), add_special_tokens=False)  # noqa: E731
    response = spoken(policy, encode(said), stop)
    assert list(response.tokens) == encode(left)
    assert response.stop == ("length" if left == said else "stop")
    assert response.text == left.replace("^", "")
    assert response.version == 3
    assert response.logprobs == (0.0,) * len(response.tokens)


def test_a_stop_string_at_the_last_token_is_a_stop(policy: LocalPolicy) -> None:
    tokens = policy.tokenizer.encode("ab01", add_special_tokens=False)
    assert spoken(policy, tokens, ("01",)).stop == "stop"
    assert spoken(policy, [*tokens[:-1], end_of(policy)], ("01",)).stop == "eos"


def test_ids_ends_and_length(policy: LocalPolicy) -> None:
    end = end_of(policy)
    responses = written(policy, Sampling(max_tokens=25, stop_ids=(9, 11)))
    for response in responses:
        last = response.tokens[-1]
        expected = "eos" if last == end else "stop" if last in (9, 11) else "length"
        assert response.stop == expected
        assert len(response.tokens) == 25 or expected != "length"
        assert not set(response.tokens[:-1]) & {end, 9, 11}
    assert {response.stop for response in responses} == {"stop", "eos", "length"}


def test_the_end_token_wins_at_the_last_place(policy: LocalPolicy) -> None:
    """One token long: an end is an end, although the length is reached as well."""
    responses = written(policy, Sampling(max_tokens=1), num=2000)
    end = end_of(policy)
    assert {response.stop for response in responses} == {"eos", "length"}
    assert all((response.stop == "eos") == (response.tokens == (end,)) for response in responses)


def test_the_context_ends_a_response_and_refuses_a_prompt(policy: LocalPolicy) -> None:
    responses = written(policy, Sampling(max_tokens=100), prompt_tokens=35)
    assert max(len(response.tokens) for response in responses) == 5
    assert {r.stop for r in responses if len(r.tokens) == 5} <= {"length", "eos"}
    with pytest.raises(ValueError, match=r"has 40 tokens; the model's context holds 40.*shorten the prompt"):
        written(policy, Sampling(), prompt_tokens=40)


def test_what_is_not_allowed() -> None:
    for wrong in ({"temperature": 0.0}, {"temperature": math.inf}, {"top_p": 0.0}, {"top_k": -1}, {"min_p": 1.0}, {"max_tokens": 0}):
        with pytest.raises(ValueError, match="allowed: temperature > 0"):
            replace(Sampling(), **wrong)

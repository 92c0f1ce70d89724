"""Text while it is written: joined it is the response, and the response is the one that would have been sampled."""

from __future__ import annotations

import io
import itertools
import random
from collections.abc import Iterator

import pytest
import torch
from rich.console import Console
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ikusei.backends.local import LocalPolicy
from ikusei.cli.main import main
from ikusei.models.causal import CausalModel
from ikusei.models.load import load_model, load_tokenizer
from ikusei.samplers.local import LocalSampler
from ikusei.samplers.streaming import settled
from ikusei.serve.chat import ThoughtReader, show_stream
from ikusei.text.chat import render
from ikusei.types import Example, Message, Prompt, Response, Sampling


@pytest.fixture(scope="module", params=["forest", "padded"])
def sampler(request: pytest.FixtureRequest) -> LocalSampler:
    torch.set_num_threads(1)
    return LocalSampler(CausalModel(load_model("seedling"), request.param), load_tokenizer("seedling"), 8)


@pytest.fixture(scope="module")
def prompt(sampler: LocalSampler) -> Prompt:
    return render(sampler.tokenizer, Example("123+456="))


def streamed(sampler: LocalSampler, prompt: Prompt, sampling: Sampling, seed: int) -> tuple[list[str], Response]:
    *pieces, response = sampler.stream(prompt, sampling, seed)
    assert isinstance(response, Response)
    return [str(piece) for piece in pieces], response


@pytest.mark.parametrize(
    "sampling",
    [Sampling(max_tokens=48), Sampling(max_tokens=40, temperature=4.0), Sampling(max_tokens=48, stop=("1", "</think>"))],
    ids=["plain", "wild", "stops"],
)
def test_a_stream_is_the_sample(sampler: LocalSampler, prompt: Prompt, sampling: Sampling) -> None:
    """Tokens, log-probs, end and seed; among them parts of characters, which are shown when the character is whole."""
    parts = 0
    for seed in range(5):
        pieces, response = streamed(sampler, prompt, sampling, seed)
        [group] = sampler.sample([prompt], 1, sampling, seed)
        assert response == group.responses[0]
        assert "".join(pieces) == response.text and all(pieces)
        parts += sum("\ufffd" in sampler.tokenizer.decode([token]) for token in response.tokens)
    assert (parts > 0) == (sampling.temperature > 1)


def test_it_comes_while_it_is_written(sampler: LocalSampler, prompt: Prompt, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each piece is there before the next token is asked for; who has seen enough may leave."""
    steps = 0
    forward = sampler.causal.logits

    def counted(*args: torch.Tensor) -> torch.Tensor:
        nonlocal steps
        steps += 1
        return forward(*args)

    sampling = Sampling(max_tokens=48)
    pieces, response = streamed(sampler, prompt, sampling, 4)
    assert len(pieces) > 20 and len(response.tokens) > 20
    monkeypatch.setattr(sampler.causal, "logits", counted)
    stream, seen = sampler.stream(prompt, sampling, 4), list[int]()
    for _ in range(10):
        assert isinstance(next(stream), str)
        seen.append(steps)
    assert all(later == before + 1 for before, later in itertools.pairwise(seen)), "one token, one piece"


def test_no_prompt_and_a_prompt_too_long(sampler: LocalSampler, prompt: Prompt) -> None:
    assert list(sampler.sample([], 2, Sampling(), 0)) == []
    long = Prompt("long", prompt.tokens * 100, "long")
    with pytest.raises(ValueError, match="the model's context holds"):
        next(sampler.stream(long, Sampling(), 0))


def test_a_stop_string_ends_each_response_by_itself(sampler: LocalSampler, prompt: Prompt) -> None:
    """Those that end early are not written on until the last one of the batch has ended."""
    [group] = sampler.sample([prompt], 6, Sampling(max_tokens=24, stop=("1",)), 3)
    ended = [response for response in group.responses if response.stop == "stop"]
    assert len({len(response.tokens) for response in ended}) > 1, "else they end together"
    assert all(response.text.endswith("1") and response.text.count("1") == 1 for response in ended)
    assert not any("1" in response.text for response in group.responses if response.stop != "stop")


def test_a_policy_that_has_stepped_ends_the_stream() -> None:
    policy = LocalPolicy(load_model("seedling"), load_tokenizer("seedling"))
    stream = policy.snapshot().stream(render(policy.tokenizer, Example("1+1=")), Sampling(max_tokens=48), 1)
    next(stream)
    policy.version += 1
    with pytest.raises(RuntimeError, match="now at version 1"):
        list(stream)


def with_bytes() -> PreTrainedTokenizerFast:
    """As Llama's: what is no word is written in tokens of one byte each."""
    words = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "a", "\u2581b", "あ"]
    model = models.BPE({word: i for i, word in enumerate(words)}, [], unk_token="<unk>", byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


@pytest.mark.parametrize("tokenizer", [with_bytes(), load_tokenizer("seedling")], ids=["byte tokens", "byte-level"])
def test_what_is_settled_never_changes(tokenizer: PreTrainedTokenizerBase) -> None:
    """Whatever comes after it: real text, and tokens at random, most of which are no characters."""
    chance = random.Random(0)
    texts = ["a b ああいぬ🐈", "12+3 \ufffd 🐈\ufffd"]
    rows = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    for _ in range(60):
        rows.append(chance.choices(range(len(tokenizer)), k=12) + chance.choices(tokenizer.encode("あ🐈", add_special_tokens=False), k=6))
    held = 0
    for row in rows:
        whole = tokenizer.decode(row, skip_special_tokens=True)
        shown = [settled(tokenizer, row[:end]) for end in range(len(row) + 1)]
        assert all(whole.startswith(text) for text in shown)
        assert all(later.startswith(text) for text, later in itertools.pairwise(shown))
        held += any(text != tokenizer.decode(row[:end], skip_special_tokens=True) for end, text in enumerate(shown))
    assert held > 10


@pytest.mark.parametrize(
    ("text", "opened", "expected"),
    [
        ("<think>3+4</think>7", False, "(3+4) 7\n"),
        ("  7 <b> 8 ", False, "7 <b> 8\n"),
        ("<think></think>7", False, "7\n"),
        ("3+4</think>\n7\n", True, "(3+4) 7\n"),
        ("<think> 3\n+4 ", False, "(3\n+4) …\n"),
        ("", False, "…\n"),
        ("1 <thi", False, "1 <thi\n"),
    ],
)
def test_thoughts_are_told_apart_however_the_text_comes(text: str, opened: bool, expected: str) -> None:
    for size in (1, 2, 3, 7, 100):
        pieces = [text[begin : begin + size] for begin in range(0, len(text), size)]
        out = io.StringIO()
        response = Response((1,), (True,), text)
        assert show_stream(iter([*pieces, response]), Console(file=out, width=20), opened) is response
        assert out.getvalue() == expected
    reader = ThoughtReader(opened)
    read = [part for piece in text for part in reader.read(piece)] + [*reader.read("", last=True)]
    assert "".join(part for _, part in read) == text.replace("<think>", "").replace("</think>", "")


def test_a_conversation_shows_what_is_sampled(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("123+456=\n789+345=\n\n"))
    with pytest.raises(SystemExit) as ended:
        main(["chat", "seedling", "--max-tokens", "32"])
    assert ended.value.code == 0
    sampler = LocalSampler(CausalModel(load_model("seedling"), "forest"), load_tokenizer("seedling"), 64)
    shown = capsys.readouterr().out
    for seed, question in ((1, "123+456="), (2, "789+345=")):
        _, response = streamed(
            sampler, render(sampler.tokenizer, Example((Message(role="user", content=question),))), Sampling(0.7, max_tokens=32), seed
        )
        whole: Iterator[str | Response] = iter([response.text, response])
        out = io.StringIO()
        show_stream(whole, Console(file=out))
        assert f"model {out.getvalue()}" in shown

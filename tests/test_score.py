"""log P of strings: the probabilities of all strings add up to 1, and they are those of transformers and of the sampler."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ikusei.cli.main import main
from ikusei.models.causal import CausalModel
from ikusei.models.score import TOKENS_PER_MICROBATCH, score
from ikusei.samplers.load import load_sampler
from ikusei.samplers.local import LocalSampler
from ikusei.text.chat import continuation, render
from ikusei.text.read import read_texts
from ikusei.types import Example, Sampling, TextLogprobs

LETTERS = "abc"
QUESTION = "しろねこはすきですか？"
TEXTS = ["ねこはかわいい。", "しろねこはとてもかわいいですね。", "あ", "<think>1+2=3</think>3", "", "漢字 ok"]


@pytest.fixture(scope="module")
def seedling() -> LocalSampler:
    torch.set_num_threads(1)
    return load_sampler("seedling")


def tiny(seed: int = 0) -> tuple[CausalModel, PreTrainedTokenizerBase]:
    """A model over the letters a, b, c and the token that ends a text, far from uniform."""
    letters = Tokenizer(models.WordLevel({"<end>": 0, **{letter: i for i, letter in enumerate(LETTERS, 1)}}, unk_token="<end>"))
    letters.pre_tokenizer, letters.decoder = pre_tokenizers.Split("", "isolated"), decoders.Fuse()  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=letters, eos_token="<end>")
    config = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    torch.manual_seed(seed)
    kind = AutoConfig.for_model("qwen3", vocab_size=4, head_dim=8, max_position_embeddings=16, initializer_range=0.6, **config)
    return CausalModel(AutoModelForCausalLM.from_config(kind, dtype=torch.float32)), tokenizer


def total(scored: Sequence[TextLogprobs]) -> float:
    return math.fsum(math.exp(each.logp) for each in scored)


@pytest.mark.parametrize("asked", [None, "cab"])
def test_all_strings_add_up_to_one(asked: str | None) -> None:
    """Those that end within two letters, and those that begin with three."""
    causal, tokenizer = tiny()
    prompt = render(tokenizer, Example(asked))
    ended = ["".join(letters) for length in range(3) for letters in product(LETTERS, repeat=length)]
    begun = ["".join(letters) for letters in product(LETTERS, repeat=3)]
    whole = score(causal, tokenizer, prompt, ended)
    assert 0.05 < total(whole) < 0.95
    assert total(whole) + total(score(causal, tokenizer, prompt, begun, ends=False)) == pytest.approx(1, abs=1e-6)


def test_all_tokens_add_up_to_one() -> None:
    causal, tokenizer = tiny(1)
    prompt = render(tokenizer, Example("ab"))
    scored = score(causal, tokenizer, prompt, [*LETTERS, "<end>"], ends=False)
    assert [each.tokens for each in scored] == [("a",), ("b",), ("c",), ("<end>",)]
    assert len({round(each.logp, 3) for each in scored}) == 4 and total(scored) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("asked", [None, QUESTION])
def test_it_is_the_loss_of_transformers_on_padded_rows(asked: str | None, seedling: LocalSampler) -> None:
    plain = AutoModelForCausalLM.from_pretrained(Path(__file__).parents[1] / "seedling", dtype=torch.float64)
    prompt = render(seedling.tokenizer, Example(asked))
    answers = [continuation(seedling.tokenizer, prompt, text).tokens for text in TEXTS]
    rows = torch.zeros(len(TEXTS), len(prompt.tokens) + max(map(len, answers)), dtype=torch.long)
    labels = torch.full_like(rows, -100)
    for row, label, answer in zip(rows, labels, answers, strict=True):
        end = len(prompt.tokens) + len(answer)
        row[:end] = torch.tensor([*prompt.tokens, *answer])
        label[len(prompt.tokens) : end] = torch.tensor(answer)
    scored = score(seedling.causal, seedling.tokenizer, prompt, TEXTS)
    for which, (mine, answer) in enumerate(zip(scored, answers, strict=True)):
        alone = torch.where(torch.arange(len(TEXTS))[:, None] == which, labels, -100)
        with torch.no_grad():
            loss = plain(input_ids=rows, attention_mask=(labels != -100) | (torch.arange(rows.shape[1]) < len(prompt.tokens)), labels=alone)
        assert mine.per_token == pytest.approx(-float(loss.loss), abs=1e-5)
        assert len(mine.logprobs) == len(answer) and mine.tokens[-1] == "<|end|>"


def test_it_is_what_the_sampler_said(seedling: LocalSampler) -> None:
    prompt = render(seedling.tokenizer, Example(QUESTION))
    (group,) = seedling.sample([prompt], 16, Sampling(max_tokens=48), seed=3)
    ended = [response for response in group.responses if response.stop == "eos"]
    assert len(ended) >= 12
    scored = score(seedling.causal, seedling.tokenizer, prompt, [response.text for response in ended])
    for mine, written in zip(scored, ended, strict=True):
        assert mine.logprobs == pytest.approx(written.logprobs, abs=1e-4)


def test_it_is_the_same_alone_and_among_many(seedling: LocalSampler) -> None:
    prompt = render(seedling.tokenizer, Example(QUESTION))
    many = [TEXTS[1]] * (TOKENS_PER_MICROBATCH // 16) + TEXTS
    alone, *_ = score(seedling.causal, seedling.tokenizer, prompt, [TEXTS[1]])
    among = score(seedling.causal, seedling.tokenizer, prompt, many)
    assert [each.text for each in among] == many
    assert among[0].logp == pytest.approx(alone.logp, abs=1e-4) and among[-5].logp == pytest.approx(alone.logp, abs=1e-4)


def test_what_is_told_of_a_text() -> None:
    told = TextLogprobs("あa", ("あ", "a", "<end>"), (-700.0, -299.0, -1.0), ended=True)
    assert told.logp == -1000 and told.per_token == pytest.approx(-1000 / 3)
    assert told.bits_per_byte == pytest.approx(1000 / math.log(2) / 4)  # three bytes and one
    assert told.probability == "5.08e-435"  # no float is so small
    assert TextLogprobs("a", ("a",), (math.log(0.02),), ended=False).probability == "0.02"
    assert TextLogprobs("", ("<end>",), (-1.0,), ended=True).bits_per_byte == math.inf


def test_a_text_that_does_not_fit_is_named() -> None:
    causal, tokenizer = tiny()
    prompt = render(tokenizer, Example("ab"))
    assert len(score(causal, tokenizer, prompt, ["c" * 13])[0].tokens) == 14  # 2 + 13 + 1 = 16, the whole context
    with pytest.raises(ValueError, match=r"'cccccccccccccc': it takes 15 tokens after a prompt of 2.*holds 16"):
        score(causal, tokenizer, prompt, ["a", "c" * 14])
    with pytest.raises(ValueError, match="its probability is 1"):
        score(causal, tokenizer, prompt, [""], ends=False)


def test_files_of_texts(tmp_path: Path) -> None:
    lines, rows = tmp_path / "lines.txt", tmp_path / "rows.jsonl"
    lines.write_text("ねこ。\n\n いぬ。\n", "utf-8-sig")
    rows.write_text('{"text": "ねこ。", "kind": 1}\n"いぬ\u2028。"\n', "utf-8")  # JSON may hold what other programs take for a line end
    assert read_texts(lines) == ["ねこ。", " いぬ。"] and read_texts(rows) == ["ねこ。", "いぬ\u2028。"]
    for bad, problem in (('{"text": "a"}\n{"txt": "b"}', "rows.jsonl:2: no text"), ('{"text": ', "rows.jsonl:1: not JSON")):
        rows.write_text(bad)
        with pytest.raises(ValueError, match=problem):
            read_texts(rows)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "more.txt"
    file.write_text("ねこはかわいい。\n", "utf-8")
    words = ["score", "あえ", "--file", str(file), "--model", "seedling", "--prompt", QUESTION]
    for extra in (["--json"], ["--json", "--open"], ["--tokens"]):
        with pytest.raises(SystemExit) as ended:
            main([*words, *extra])
        assert ended.value.code == 0
    exact, open_, *table = capsys.readouterr().out.splitlines()
    odd, kind = json.loads(exact)
    assert odd["text"] == "あえ" and odd["logp"] < kind["logp"] - 5 and kind["logp"] == pytest.approx(sum(kind["logprobs"]))
    assert json.loads(open_)[1]["logp"] == pytest.approx(kind["logp"] - kind["logprobs"][-1], abs=1e-4)
    assert any("<|end|>" in line and f"{kind['logprobs'][-1]:.4f}" in line for line in table)

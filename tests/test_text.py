"""The tokenizers and the chat rendering: every text round-trips, and data is tokenised as a sampler would have written it."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from ikusei.models.make import MakeModel, TrainTokenizer, make_model, make_tokenizer
from ikusei.recipe.reader import RecipeError, build, parse
from ikusei.text.chat import continuation, render, separator
from ikusei.text.tokenizer import BEGIN, END, PAD, make_character_tokenizer
from ikusei.text.train_tokenizer import Kind, train_tokenizer
from ikusei.types import Example, Message

TOKENIZER = make_character_tokenizer()
TEXTS = (
    "478+356=<think>8+6=14 7+5+1=13 4+3+1=8</think>834",
    "ねこはかわいい。「すき」ですか？ー！",
    "猫が好き 😺 é が\u3099\t\r\n  end ",
    "",
    " ",
    "\n\n<think></think>",
)
CONVERSATION = (Message(role="user", content="1+2="), Message(role="assistant", content="<think>1+2=3</think>3"))
SPOKEN = [dict[str, Any](message) for message in CONVERSATION]  # as transformers wants it


def from_vocabulary(vocabulary: list[str], merges: list[tuple[str, str]]) -> Tokenizer:
    return Tokenizer(models.BPE({token: index for index, token in enumerate(vocabulary)}, merges))


@pytest.mark.parametrize("text", TEXTS)
def test_texts_round_trip_exactly(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text
    assert TOKENIZER.decode(TOKENIZER.encode(text), skip_special_tokens=True) == text


def test_random_unicode_round_trips() -> None:
    chance = random.Random(0)
    for _ in range(200):
        text = "".join(
            chr(chance.choice((chance.randrange(32, 127), chance.randrange(0x3000, 0x9FFF), chance.randrange(0x1F300, 0x1F6FF))))
            for _ in range(20)
        )
        assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


def test_a_character_is_a_token_and_the_think_tags_are_ordinary_ones() -> None:
    assert len(TOKENIZER.encode("123+456=")) == 8
    assert len(TOKENIZER.encode("ねこ。")) == 3
    assert len(TOKENIZER.encode("<think></think>")) == 2
    assert len(TOKENIZER.encode("猫")) == 3  # its three bytes
    assert not {"<think>", "</think>"} & set(TOKENIZER.all_special_tokens)
    assert [TOKENIZER.convert_tokens_to_ids(token) for token in (PAD, BEGIN, END)] == [0, 1, 2]
    assert (TOKENIZER.bos_token, TOKENIZER.eos_token, TOKENIZER.pad_token) == (BEGIN, END, PAD)


def test_it_is_the_same_after_saving(tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for text in TEXTS:
        assert loaded.encode(text) == TOKENIZER.encode(text)
        assert loaded.decode(loaded.encode(text)) == text
    assert loaded.apply_chat_template(SPOKEN, tokenize=False) == TOKENIZER.apply_chat_template(SPOKEN, tokenize=False)
    assert (loaded.pad_token, loaded.eos_token, loaded.bos_token) == (PAD, END, BEGIN)
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 50_000


def test_the_template_marks_the_words_of_the_assistant_and_its_end() -> None:
    encoded: Any = TOKENIZER.apply_chat_template(SPOKEN, return_dict=True, return_assistant_tokens_mask=True)
    marked = [token for token, mine in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True) if mine]
    assert TOKENIZER.decode(marked) == CONVERSATION[1]["content"] + END


def test_the_template_in_full() -> None:
    spoken = [{"role": "system", "content": "Be brief. "}, *SPOKEN, {"role": "user", "content": "2+5="}]
    system, first = "<|begin|>Be brief. ", "<|user|>1+2=<|end|><|assistant|><think>1+2=3</think>3<|end|>"
    assert TOKENIZER.apply_chat_template(spoken, tokenize=False) == system + first + "<|user|>2+5=<|end|>"
    asked = TOKENIZER.apply_chat_template(spoken, tokenize=False, add_generation_prompt=True)
    assert asked == system + first + "<|user|>2+5=<|end|><|assistant|>"
    assert TOKENIZER.apply_chat_template(SPOKEN, tokenize=False) == "<|begin|>" + first


def test_the_template_refuses_an_unknown_role() -> None:
    with pytest.raises(Exception, match="role wizard; allowed: system, user, assistant"):
        TOKENIZER.apply_chat_template([{"role": "wizard", "content": "x"}], tokenize=False)


@pytest.mark.parametrize("characters", ["", "aa"])
def test_characters_must_be_some_and_different(characters: str) -> None:
    with pytest.raises(ValueError, match="give each once"):
        make_character_tokenizer(characters)


def test_a_question_is_rendered_as_a_message_of_the_user() -> None:
    prompt = render(TOKENIZER, Example("1+2=", columns={"answer": "3"}))
    assert TOKENIZER.decode([*prompt.tokens]) == "<|begin|><|user|>1+2=<|end|><|assistant|>"
    assert prompt.text == "1+2=" and prompt.columns == {"answer": "3"}
    assert prompt.tokens == render(TOKENIZER, Example(CONVERSATION[:1])).tokens


def test_plain_text_begins_once() -> None:
    begin = TOKENIZER.bos_token_id
    assert render(TOKENIZER, Example("ねこは"), "none").tokens == (begin, *TOKENIZER.encode("ねこは"))
    assert render(TOKENIZER, Example(BEGIN + "ねこは"), "none").tokens == (begin, *TOKENIZER.encode("ねこは"))


def test_no_prompt_is_the_separator() -> None:
    assert render(TOKENIZER, Example(None, ("ねこ。",))).tokens == (TOKENIZER.bos_token_id,)
    without_begin = PreTrainedTokenizerFast(tokenizer_object=from_vocabulary(["<end>", "a"], []), eos_token="<end>")
    assert separator(without_begin) == without_begin.eos_token_id
    with pytest.raises(ValueError, match="set eos_token"):
        separator(PreTrainedTokenizerFast(tokenizer_object=from_vocabulary(["a"], [])))


def test_a_tokenizer_that_adds_begin_itself_does_not_double_it() -> None:
    adding = make_character_tokenizer()
    adding.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", special_tokens=[(BEGIN, adding.bos_token_id)]
    )
    assert adding.encode("ab")[0] == adding.bos_token_id
    for template in ("chat", "none"):
        assert render(adding, Example("ab"), template).tokens == render(TOKENIZER, Example("ab"), template).tokens
    prompt = render(adding, Example("ab"))
    assert continuation(adding, prompt, "c").tokens == continuation(TOKENIZER, prompt, "c").tokens


def test_the_id_is_of_the_content() -> None:
    example = Example("1+2=", columns={"answer": "3", "level": 1})
    prompt = render(TOKENIZER, example)
    assert prompt.id == render(TOKENIZER, replace(example, columns={"level": 1, "answer": "3"}), "none").id
    others = (replace(example, columns={"answer": "4"}), replace(example, prompt="2+1="), replace(example, responses=("3",)))
    assert len({prompt.id, *(render(TOKENIZER, other).id for other in others)}) == 4


def test_messages_without_a_template_are_refused_with_the_fix() -> None:
    bare = PreTrainedTokenizerFast(tokenizer_object=from_vocabulary(["<end>", "a", "b"], []), eos_token="<end>")
    assert render(bare, Example("ab")).tokens == (1, 2)  # auto: no template, so plain text; it has no begin token
    with pytest.raises(ValueError, match=r"no chat template; put chat_template\.jinja"):
        render(bare, Example(CONVERSATION))
    with pytest.raises(ValueError, match="no chat template"):
        render(bare, Example("ab"), "chat")
    with pytest.raises(ValueError, match="template none and a prompt of 2 messages"):
        render(TOKENIZER, Example(CONVERSATION), "none")


@pytest.mark.parametrize("text", ["<think>1+2=3</think>3", "猫。", ""])
@pytest.mark.parametrize("asked", ["1+2=", None, CONVERSATION])
def test_a_continuation_is_what_the_whole_says_and_its_end(text: str, asked: Any) -> None:
    prompt = render(TOKENIZER, Example(asked))
    response = continuation(TOKENIZER, prompt, text)
    assert TOKENIZER.decode([*response.tokens]) == text + END
    assert response.mask == (True,) * len(response.tokens)
    assert response.text == text and response.stop == "eos" and response.logprobs is None


def test_a_token_over_the_border_is_never_learned() -> None:
    tokenizer = from_vocabulary(["<end>", "a", "b", "ab"], [("a", "b")])
    merging = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")
    prompt = render(merging, Example("a"))
    assert merging.encode("ab") == [3]
    assert (prompt.tokens, continuation(merging, prompt, "b").tokens) == ((1,), (2, 0))


def test_the_first_word_of_an_answer_is_written_as_after_the_prompt() -> None:
    tokenizer = from_vocabulary(["<end>", "▁", "a", "b", "x"], [])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    spacing = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")
    assert spacing.encode("b") == [1, 3]  # apart, it is written with a space in front
    assert continuation(spacing, render(spacing, Example("ax")), "b").tokens == (3, 0)


def test_a_turn_ends_with_the_token_of_its_template() -> None:
    turning = make_character_tokenizer()
    turning.add_special_tokens({"additional_special_tokens": ["<|turn|>"]})
    turning.chat_template = (
        "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|turn|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    assert continuation(turning, render(turning, Example("1+2=")), "3").tokens[-1] == turning.convert_tokens_to_ids("<|turn|>")
    assert continuation(turning, render(turning, Example("1+2="), "none"), "3").tokens[-1] == turning.eos_token_id
    assert continuation(turning, render(turning, Example(None)), "3").tokens[-1] == turning.eos_token_id
    quoted = render(turning, Example("<|assistant|>1+2="), "none")  # raw text that speaks of a turn opens none
    assert continuation(turning, quoted, "3").tokens[-1] == turning.eos_token_id


# training


CORPUS = [
    "478+356=<think>8+6=14 7+5+1=13 4+3+1=8</think>834",
    *(f"ねこは{word}です。 the cat is kind, the cat is {i}." for i, word in enumerate(("かわいい", "かしこい", "やさしい") * 20)),
]
KINDS = get_args(Kind)


def random_text(chance: random.Random) -> str:
    ranges = ((0, 0x20), (0x20, 0x7F), (0x7F, 0x250), (0x3000, 0x9FFF), (0x1F300, 0x1F6FF), (0xE000, 0xE010), (0x10FFF0, 0x110000))
    return "".join(chr(chance.randrange(*chance.choice(ranges))) for _ in range(20))


@pytest.mark.parametrize("kind", KINDS)
def test_trained_tokenizers_round_trip_any_text(kind: Kind, tmp_path: Path) -> None:
    trained = train_tokenizer(CORPUS, kind, 300)
    trained.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    chance = random.Random(0)
    for text in (*TEXTS, *CORPUS[:3], *(random_text(chance) for _ in range(200))):
        assert trained.decode(trained.encode(text)) == text
        assert loaded.encode(text) == trained.encode(text) and loaded.decode(loaded.encode(text)) == text
    assert loaded.apply_chat_template(SPOKEN, tokenize=False) == TOKENIZER.apply_chat_template(SPOKEN, tokenize=False)
    assert len(trained) == len(loaded) <= 300 and sorted(trained.get_vocab().values()) == list(range(len(trained)))


@pytest.mark.parametrize("kind", KINDS)
def test_trained_tokenizers_know_our_tokens(kind: Kind) -> None:
    trained = train_tokenizer([*CORPUS, "<|end|>" * 500, "<think>" * 500], kind, 300)
    assert trained.convert_ids_to_tokens([*range(7)]) == [PAD, BEGIN, END, "<|user|>", "<|assistant|>", "<think>", "</think>"]
    assert len(trained.encode("<think></think>")) == 2 and not {"<think>", "</think>"} & set(trained.all_special_tokens)
    assert trained.get_vocab() == train_tokenizer(CORPUS, kind, 300).get_vocab()  # they are no text to learn from
    prompt = render(trained, Example(CONVERSATION[:1]))
    assert (
        trained.decode([*prompt.tokens, *continuation(trained, prompt, "3").tokens]) == "<|begin|><|user|>1+2=<|end|><|assistant|>3<|end|>"
    )


def test_bpe_learns_what_is_frequent_and_leaves_digits_alone() -> None:
    few, many = (train_tokenizer(CORPUS, "bpe", size) for size in (264, 400))
    assert len(few.encode("ねこはかわいい")) > len(many.encode("ねこはかわいい"))
    assert "Ġcat" in many.get_vocab()
    assert many.tokenize("478+356=834") == list("478+356=834")
    assert len(train_tokenizer(["aaaa"], "bpe", 10_000)) < 270  # there is no more to learn


def test_characters_are_those_that_are_most_frequent() -> None:
    trained = train_tokenizer(["bbbaac", "<think>zzzzz"], "characters", 266)
    assert trained.convert_ids_to_tokens([7, 8, 9]) == ["z", "b", "a"] and len(trained) == 266
    assert len(trained.encode("c")) == 1 and trained.convert_ids_to_tokens(trained.encode("c")) == ["<0x63>"]


def test_equal_texts_give_equal_files() -> None:
    """Here, and in a process that hashes differently and has one thread."""
    code = (
        "import sys; from ikusei.text.train_tokenizer import train_tokenizer; texts = sys.stdin.read().split('\\n'); "
        f"print(*(train_tokenizer(texts, kind, 400).backend_tokenizer.to_str() for kind in {KINDS}), sep='\\n')"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONUTF8": "1", "RAYON_NUM_THREADS": "1"}
    there = subprocess.run([sys.executable, "-c", code], input="\n".join(CORPUS).encode(), capture_output=True, env=environment, check=True)
    here = [train_tokenizer(CORPUS, kind, 400).backend_tokenizer.to_str() for kind in KINDS]
    assert there.stdout.decode() == "\n".join(here) + "\n" and min(map(len, here)) > 4000


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_trained(kind: Kind) -> None:
    with pytest.raises(ValueError, match=r"vocab_size=263; allowed: 264 or more \(256 bytes, 7 tokens of ours, one learned\)"):
        train_tokenizer(CORPUS, kind, 263)
    for nothing in ([], ["", "<think></think>"]):
        with pytest.raises(ValueError, match="no text to learn from"):
            train_tokenizer(nothing, kind, 300)


def test_a_model_is_made_with_a_trained_tokenizer() -> None:
    config = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1}
    asked = MakeModel("qwen3", TrainTokenizer("bpe", 300), config)
    tokenizer = make_tokenizer(asked, iter(CORPUS))
    assert len(tokenizer) == 300
    first = make_tokenizer(replace(asked, tokenizer=TrainTokenizer("characters", 300, num_rows=2)), ["a", "b", "c"])
    assert "b" in first.get_vocab() and "c" not in first.get_vocab()
    assert make_model(asked, tokenizer, 0).config.vocab_size == 300
    with pytest.raises(ValueError, match=r"vocab_size: got 299, and the tokenizer has 300 tokens"):
        make_model(replace(asked, config={**config, "vocab_size": 299}), tokenizer, 0)
    with pytest.raises(ValueError, match="no text to learn from"):
        make_tokenizer(asked)
    with pytest.raises(ValueError, match="vocab_size=100, num_rows=10000; allowed: 264 or more, and 1 or more"):
        TrainTokenizer("bpe", 100)


def test_a_recipe_says_how_to_train_a_tokenizer(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("model:\n  architecture: qwen3\n  tokenizer: {kind: bpe, vocab_size: 512}\n")
    section = parse(path)
    found = build(MakeModel, replace(section, data=section.data["model"]))
    assert found == MakeModel("qwen3", TrainTokenizer("bpe", 512))
    wrong = replace(section, data={**section.data["model"], "tokenizer": {"kind": "bpee", "vocabsize": 512}})
    with pytest.raises(RecipeError) as caught:
        build(MakeModel, wrong)
    assert "tokenizer.kind" in str(caught.value) and "did you mean 'vocab_size'?" in str(caught.value)

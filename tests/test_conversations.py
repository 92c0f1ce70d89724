"""Conversations of several turns under templates of every kind: the assistant's own tokens are learned, and no others."""

from __future__ import annotations

from functools import cache
from itertools import groupby
from operator import itemgetter
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ikusei.text.chat import continuation, render
from ikusei.text.tokenizer import CHAT_TEMPLATE, make_character_tokenizer
from ikusei.types import Example, Message

OPENS = "{{ '<|im_start|>' + message.role + '\\n' }}"
NEXT = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
CHATML = f"{{% for message in messages %}}{OPENS}{{{{ message.content + '<|im_end|>\\n' }}}}{{% endfor %}}{NEXT}"
MARKED = (
    "{% for message in messages %}" + OPENS + "{% if message.role == 'assistant' %}"
    "{% generation %}{{ message.content + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}"
    "{% else %}{{ message.content + '<|im_end|>\\n' }}{% endif %}{% endfor %}" + NEXT
)
LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' }}"
    "{{ message.content | trim }}{{ '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
FORGETFUL = (  # the thoughts of earlier turns are dropped
    "{% for message in messages %}" + OPENS + "{% if message.role == 'assistant' %}"
    "{% set words = message.content if loop.last else message.content.split('</think>')[-1] %}"
    "{{ words + '<|im_end|>' }}{{ '\\n' }}{% else %}{{ message.content + '<|im_end|>\\n' }}{% endif %}{% endfor %}" + NEXT
)
FORGETFUL_MARKED = FORGETFUL.replace("{{ words + '<|im_end|>' }}", "{% generation %}{{ words + '<|im_end|>' }}{% endgeneration %}")
WORDS_MARKED = MARKED.replace("{{ message.content + '<|im_end|>' }}{% endg", "{{ message.content }}{% endg", 1).replace(
    "{{ '\\n' }}", "{{ '<|im_end|>\\n' }}", 1
)
TURNS_MARKED = (  # the markers are around everything, from the opening to the line break
    "{% for message in messages %}{% if message.role == 'assistant' %}"
    "{% generation %}{{ '<|im_start|>assistant\\n' + message.content + '<|im_end|>\\n' }}{% endgeneration %}"
    "{% else %}" + OPENS + "{{ message.content + '<|im_end|>\\n' }}{% endif %}{% endfor %}" + NEXT
)
ENDLESS = "{% for message in messages %}{{ message.role + ': ' + message.content + '\\n' }}{% endfor %}" + (
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
TEMPLATES = {
    "ours": CHAT_TEMPLATE,
    "ChatML": CHATML,
    "ChatML, marked": MARKED,
    "Llama 3": LLAMA3,
    "words marked": WORDS_MARKED,
    "turns marked": TURNS_MARKED,
}


@cache
def speaking(template: str) -> PreTrainedTokenizerBase:
    tokenizer = make_character_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL})
    tokenizer.chat_template = template
    return tokenizer


def says(role: str, content: str, **loss: bool) -> Message:
    return Message(role=role, content=content, **loss)  # pyright: ignore[reportArgumentType]


ASKED = (says("system", "be kind"), says("user", "1+2="))
SAID = (says("assistant", "<think>1+2=3</think>3"), says("user", "猫と+4="), says("assistant", "<think>3+4=7</think>7"))


def learned(tokenizer: PreTrainedTokenizerBase, said: tuple[Message, ...], asked: Any = ASKED) -> str:
    """What is learned, a bar after each turn; after checking that prompt and response are what the template writes."""
    prompt = render(tokenizer, Example(asked))
    response = continuation(tokenizer, prompt, said)
    messages = [{"role": m["role"], "content": m["content"]} for m in (*prompt.asked, *said)]  # pyright: ignore
    whole = str(tokenizer.apply_chat_template(messages, tokenize=False))
    assert whole.rstrip("\n") == tokenizer.decode([*prompt.tokens, *response.tokens])
    assert tokenizer.encode(whole, add_special_tokens=False)[: len(prompt.tokens + response.tokens)] == [*prompt.tokens, *response.tokens]
    assert len(response.mask) == len(response.tokens) and response.stop == "eos"
    runs = groupby(zip(response.tokens, response.mask, strict=True), key=itemgetter(1))
    return "|".join(str(tokenizer.decode([token for token, _ in run])) for on, run in runs if on)


def end_of(template: str) -> str:
    return "<|end|>" if template == CHAT_TEMPLATE else "<|eot_id|>" if template == LLAMA3 else "<|im_end|>"


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_the_words_of_the_assistant_and_their_end_are_learned(template: str) -> None:
    tokenizer, end = speaking(template), end_of(template)
    first, last = SAID[0]["content"] + end, SAID[2]["content"] + end
    assert learned(tokenizer, SAID) == f"{first}|{last}"
    assert learned(tokenizer, (says("assistant", SAID[0]["content"], loss=False), *SAID[1:])) == last
    assert learned(tokenizer, (*SAID[:2], says("assistant", SAID[2]["content"], loss=False))) == first
    assert learned(tokenizer, SAID[:1]) == first
    assert learned(tokenizer, SAID[2:], (*ASKED, *SAID[:2])) == last  # what stands in the prompt is not learned


@pytest.mark.parametrize("template", [*TEMPLATES.values(), FORGETFUL, FORGETFUL_MARKED], ids=[*TEMPLATES, "forgetful", "forgetful, marked"])
@pytest.mark.parametrize("text", ["3", "<think>1+2=3</think>3", "猫 😺"])
@pytest.mark.parametrize("asked", ["1+2=", ASKED])
def test_one_turn_is_the_same_as_a_text(template: str, text: str, asked: Any) -> None:
    prompt = render(speaking(template), Example(asked))
    assert continuation(speaking(template), prompt, (says("assistant", text),)) == continuation(speaking(template), prompt, text)


def test_a_template_that_forgets_thoughts() -> None:
    with pytest.raises(ValueError, match=r"no \{% generation %\} markers and rewrites earlier turns.* message 3 .*put \{% generation %\}"):
        learned(speaking(FORGETFUL), SAID)
    last = "<think>3+4=7</think>7<|im_end|>"
    assert learned(speaking(FORGETFUL_MARKED), SAID) == f"3<|im_end|>|{last}"
    assert learned(speaking(FORGETFUL), (says("assistant", SAID[0]["content"], loss=False), *SAID[1:])) == last
    plain = (says("assistant", "3"), *SAID[1:])
    assert learned(speaking(FORGETFUL), plain) == f"3<|im_end|>|{last}"  # nothing to forget


def test_a_thought_that_the_template_opens_is_not_learned() -> None:
    """The template writes `<think>` after the opening of a turn, and the assistant the rest."""
    for template in (CHATML, MARKED):
        opening = template.replace(NEXT, NEXT.replace("assistant\\n", "assistant\\n<think>"))
        assert learned(speaking(opening), SAID) == "1+2=3</think>3<|im_end|>|3+4=7</think>7<|im_end|>"


def test_the_markers_of_our_template_agree_with_those_of_transformers() -> None:
    tokenizer = speaking(CHAT_TEMPLATE)
    messages = [dict[str, Any](message) for message in (*ASKED, *SAID)]
    theirs: Any = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    prompt = render(tokenizer, Example(ASKED))
    response = continuation(tokenizer, prompt, SAID)
    assert theirs["input_ids"] == [*prompt.tokens, *response.tokens]
    assert theirs["assistant_masks"] == [0] * len(prompt.tokens) + [int(on) for on in response.mask]


def test_what_a_person_reads() -> None:
    prompt = render(speaking(CHATML), Example(ASKED))
    assert prompt.asked == ASKED
    assert continuation(speaking(CHATML), prompt, SAID).text == "\n".join(f"{m['role']}: {m['content']}" for m in SAID)
    assert continuation(speaking(CHATML), prompt, SAID[:1]).text == SAID[0]["content"]


def test_a_token_over_a_border_is_never_learned_from() -> None:
    """The template's line break and the first one of an answer would be one token of two."""
    vocabulary = ["<|im_start|>", "<|im_end|>", "Ċ", "ĊĊ", *sorted({*pre_tokenizers.ByteLevel.alphabet()} - {"Ċ"})]
    inner = Tokenizer(models.BPE({token: number for number, token in enumerate(vocabulary)}, [("Ċ", "Ċ")]))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False), decoders.ByteLevel()
    inner.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    merging = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|im_end|>", chat_template=CHATML)
    said = (says("assistant", "\na"), says("user", "b"), says("assistant", "\nc"))
    prompt = render(merging, Example("x"))
    response = continuation(merging, prompt, said)
    ids = [token for token, on in zip(response.tokens, response.mask, strict=True) if on]
    assert merging.convert_ids_to_tokens(ids) == ["Ċ", "a", "<|im_end|>", "Ċ", "c", "<|im_end|>"]
    assert "ĊĊ" in merging.tokenize("assistant\n\na")
    assert continuation(merging, prompt, said[:1]) == continuation(merging, prompt, "\na")


@pytest.mark.parametrize(
    ("template", "asked", "said", "message"),
    [
        (CHATML, ASKED, (says("assistant", "3", loss=False),), r"after the prompt come: assistant \(loss: false\); .* at least one"),
        (CHATML, ASKED, SAID[:2], "after the prompt come: assistant, user; the assistant's turn must be the last"),
        (CHATML, ASKED, (), "the assistant's turn must be the last"),
        (CHATML, None, SAID, "after no prompt"),
        (ENDLESS, ASKED, SAID, "ends '.*' without '<|end|>', so the model could not learn to end its turn"),
        (MARKED.replace("message.role == 'assistant'", "loop.last"), ASKED, SAID, "marks 1 blocks .* speaks 2 times"),
        (CHATML.replace(NEXT, NEXT.replace("assistant\\n", "assistant\\nWell, ")), ASKED, SAID, "writes it otherwise afterwards; put"),
    ],
)
def test_what_cannot_be_learned_is_refused(template: str, asked: Any, said: tuple[Message, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        continuation(speaking(template), render(speaking(template), Example(asked)), said)


def test_a_conversation_after_plain_text_is_refused() -> None:
    with pytest.raises(ValueError, match="after a prompt of plain text; render the prompt with template chat"):
        continuation(speaking(CHATML), render(speaking(CHATML), Example("1+2="), "none"), SAID)

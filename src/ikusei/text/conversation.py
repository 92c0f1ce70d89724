"""Tokenizes conversations by the chat template, with a mask of the assistant's tokens.

    <|begin|><|user|>1+2=<|end|><|assistant|> 3<|end|> <|user|>plus 4?<|end|><|assistant|> 7<|end|>
                      the prompt ends here ─┘ target                                      target

The targets of an assistant turn are its tokens from the first word to its end token. Headers of turns, other roles, text after the end
token (a line break) and assistant turns with `loss: false` are context. Turns are located by the template's `{% generation %}` markers.
Without markers a turn is the difference of two renderings, of the messages before it and up to it; both have to be prefixes of the whole,
so a template that rewrites earlier turns (by dropping their thoughts) is refused.

Left out: tools, images.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from ikusei.types import Message

MARKER = re.compile(r"\{%-?\s*generation\s*-?%\}")
Span = tuple[int, int]  # from, to, in the characters of the rendered text


def rest(
    tokenizer: PreTrainedTokenizerBase, prompt: Sequence[Message], response: Sequence[Message]
) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """The tokens of the `response` after the messages of `prompt`, up to the end of the last turn, and the mask of targets.

    Raises ValueError where there is no target, where the last turn is not the assistant's, and where turns cannot be located.
    """
    learned = {number for number, message in enumerate([*prompt, *response]) if number >= len(prompt) and _is_learned(message)}
    if not learned or response[-1]["role"] != "assistant":
        found = ", ".join(f"{message['role']} (loss: false)" if message.get("loss") is False else message["role"] for message in response)
        raise ValueError(f"after the prompt come: {found}; the assistant's turn must be the last, and at least one of its turns be learned")
    text = rendered(tokenizer, [*prompt, *response], answer_next=False)
    opening = rendered(tokenizer, prompt, answer_next=True)
    if not text.startswith(opening):
        raise ValueError(f"the chat template opens an answer with {opening[-30:]!r} and writes it otherwise afterwards; {_fix()}")
    end = decode(tokenizer, [turn(tokenizer)[1]])
    spans = _spans(tokenizer, [*prompt, *response], text, learned)
    text = text[: text.rfind(end) + len(end)]  # a response ends where a sampled one does
    tokens: list[int] = []
    mask: list[bool] = []
    before = opening
    for piece, on in _pieces(text, len(opening), spans):
        new = encode_after(tokenizer, piece, before, encode(tokenizer, before))
        tokens += new
        mask += [on] * len(new)
        before = piece
    return tuple(tokens), tuple(mask)


def rendered(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], answer_next: bool) -> str:
    text = tokenizer.apply_chat_template(_plain(messages), tokenize=False, add_generation_prompt=answer_next)
    assert isinstance(text, str)
    return text


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    return tuple(tokenizer.encode(text, add_special_tokens=False))


def decode(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> str:
    text = tokenizer.decode(list(tokens), skip_special_tokens=False)
    assert isinstance(text, str)
    return text


def encode_after(tokenizer: PreTrainedTokenizerBase, text: str, before: str, tokens_before: tuple[int, ...]) -> tuple[int, ...]:
    """The tokens of `text` where it follows `before`.

    Both are tokenized together, since some tokenizers encode the first word of a text differently (a space in front). The result is what
    follows the tokens of `before`. Where a token would span the boundary, `text` is tokenized separately, as a sampler would generate it.
    """
    whole = encode(tokenizer, before + text)
    size = len(tokens_before)
    return whole[size:] if whole[:size] == tokens_before else encode(tokenizer, text)


def end_of_text(tokenizer: PreTrainedTokenizerBase) -> int:
    if not isinstance(tokenizer.eos_token_id, int):
        raise ValueError("the tokenizer has no end token, so no text can end; one is needed; set eos_token in tokenizer_config.json")
    return tokenizer.eos_token_id


@lru_cache(maxsize=16)
def turn(tokenizer: PreTrainedTokenizerBase) -> tuple[str, int]:
    """What the chat template writes before an answer, and the token that it ends one with."""
    question, answer = Message(role="user", content="a question"), Message(role="assistant", content="an answer")
    closed, opened = (rendered(tokenizer, [question], answer_next) for answer_next in (False, True))
    rendering = rendered(tokenizer, [question, answer], answer_next=False)
    after = encode(tokenizer, rendering.rpartition(answer["content"])[2])
    special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    ends = next((token for token in after if token in special), None)
    return opened.removeprefix(closed), end_of_text(tokenizer) if ends is None else ends


def _is_learned(message: Message) -> bool:
    return message["role"] == "assistant" and message.get("loss", True)


def _plain(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message["role"], "content": message["content"]} for message in messages]


def _spans(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], text: str, learned: set[int]) -> list[Span]:
    """Where the learned turns lie in `text`: from the first word to the end token, and no further."""
    template = tokenizer.get_chat_template()
    raw = _marked(tokenizer, template, messages, learned) if MARKER.search(template) else _located(tokenizer, messages, text, learned)
    opens, end = turn(tokenizer)[0], decode(tokenizer, [turn(tokenizer)[1]])
    spans = []
    for start, stop in raw:
        opened = text.find(opens, max(0, start - len(opens)), stop)
        start = opened + len(opens) if 0 <= opened <= start else start  # markers around the whole turn, or around a part of its opening
        last = text.rfind(end, start, stop + len(end))  # markers around the words alone leave the end token outside
        if last < 0:
            raise ValueError(
                f"the chat template ends {text[start:stop][-30:]!r} without {end!r}, so the model could not learn to end its turn; "
                "write the end token after each turn of the assistant in chat_template.jinja"
            )
        spans.append((start, last + len(end)))
    return spans


def _marked(tokenizer: PreTrainedTokenizerBase, template: str, messages: Sequence[Message], learned: set[int]) -> list[Span]:
    """By the template's own markers, a block a turn of the assistant."""
    special: dict[str, Any] = tokenizer.special_tokens_map
    found: Any = render_jinja_template([_plain(messages)], chat_template=template, return_assistant_tokens_mask=True, **special)
    spans: list[Span] = found[1][0]  # of the one conversation
    own = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
    if len(spans) != len(own):
        raise ValueError(
            f"the chat template marks {len(spans)} blocks in a conversation where the assistant speaks {len(own)} times; "
            "allowed: one {% generation %} block around each of its turns; mend chat_template.jinja"
        )
    return [span for number, span in zip(own, spans, strict=True) if number in learned]


def _located(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], text: str, learned: set[int]) -> list[Span]:
    """Between the messages before a turn and those up to it, each rendered and each the beginning of the whole."""
    spans = []
    for number in sorted(learned):
        opening = rendered(tokenizer, messages[:number], answer_next=True)
        rendering = rendered(tokenizer, messages[: number + 1], answer_next=False)
        if not (rendering.startswith(opening) and text.startswith(rendering)):
            raise ValueError(
                "the chat template has no {% generation %} markers and rewrites earlier turns, so the tokens of message "
                f"{number + 1} cannot be told from the others; {_fix()}"
            )
        spans.append((len(opening), len(rendering)))
    return spans


def _fix() -> str:
    return (
        "put {% generation %} and {% endgeneration %} around the assistant's words and their end token in chat_template.jinja, "
        'or learn the last answer alone ("loss": false on the others)'
    )


def _pieces(text: str, start: int, spans: Sequence[Span]) -> Iterator[tuple[str, bool]]:
    """`text` from `start` on, cut at the borders of the spans, and whether each piece is within one."""
    for begin, end in spans:
        if begin > start:
            yield text[start:begin], False
        yield text[begin:end], True
        start = end
    if start < len(text):
        yield text[start:], False

"""From an example to tokens: the prompt as the chat template renders it, and what is learned after it.

A response starts where the prompt's last token ends, for the sampler as for data: that is what `continuation` keeps equal.

Left out: masks over several turns (`"loss": false` per message), tools, images.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

from transformers import PreTrainedTokenizerBase

from ikusei.types import Example, Message, Prompt, Response, content_id

Template = Literal["auto", "chat", "none"]


def render(tokenizer: PreTrainedTokenizerBase, example: Example, template: Template = "auto") -> Prompt:
    """The prompt of an example in tokens. A plain question is one message of the user where there is a chat template (`auto`), else plain
    text after one begin token; no prompt is the one token that separates texts. The id hashes the row's content, not its tokens."""
    prompt = example.prompt
    content = content_id(prompt, example.responses, sorted(example.columns.items()))
    if prompt is None:
        return Prompt(content, (separator(tokenizer),), "", example.columns)
    if template == "none" or (template == "auto" and isinstance(prompt, str) and not tokenizer.chat_template):
        if not isinstance(prompt, str):
            raise ValueError(f"template none and a prompt of {len(prompt)} messages; allowed: a text; use template chat, or give a text")
        return Prompt(content, _plain(tokenizer, prompt), prompt, example.columns)
    messages = (Message(role="user", content=prompt),) if isinstance(prompt, str) else prompt
    return Prompt(content, _chat(tokenizer, messages), _readable(messages), example.columns)


def continuation(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, text: str) -> Response:
    """`text` as a response to learn from: its tokens after the prompt, and the token that ends it.

    The whole is tokenised at once, because some tokenizers write the first word of a text in another way than the same word after something
    (a space in front); its tokens are taken after checking that they begin with the prompt's own. Where a token would span the border they
    do not: then the answer is tokenised apart, as a sampler, which begins after the prompt's last token, would have to write it.
    """
    opening = _decode(tokenizer, prompt.tokens)
    whole = _encode(tokenizer, opening + text)
    size = len(prompt.tokens)
    tokens = whole[size:] if whole[:size] == prompt.tokens else _encode(tokenizer, text)
    ids = (*tokens, _end(tokenizer, opening))
    return Response(ids, (True,) * len(ids), text, stop="eos")


def ends_of(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The ids that a response may end with: end of text and, where the chat template has one, end of turn."""
    of_turn = {_turn(tokenizer)[1]} if tokenizer.chat_template else set()
    return frozenset({_end_of_text(tokenizer), *of_turn})


def separator(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that raw text starts after: begin, else end of text."""
    begin = tokenizer.bos_token_id
    return begin if isinstance(begin, int) else _end_of_text(tokenizer)


def _plain(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    """One begin token, where the tokenizer has any: whether the text, the tokenizer or neither brought it."""
    tokens = _encode(tokenizer, text)
    begin = tokenizer.bos_token_id
    return (begin, *tokens) if isinstance(begin, int) and tokens[:1] != (begin,) else tokens


def _chat(tokenizer: PreTrainedTokenizerBase, messages: tuple[Message, ...]) -> tuple[int, ...]:
    if not tokenizer.chat_template:
        raise ValueError(
            f"a prompt of {len(messages)} message(s), and the tokenizer has no chat template; "
            "put chat_template.jinja into the model's folder, or ask with plain text prompts"
        )
    return _encode(tokenizer, _rendered(tokenizer, messages, answer_next=True))  # the template brings its own begin token


def _rendered(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], answer_next: bool) -> str:
    conversation = [{"role": message["role"], "content": message["content"]} for message in messages]
    text = tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=answer_next)
    assert isinstance(text, str)
    return text


def _readable(messages: tuple[Message, ...]) -> str:
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages)


def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    return tuple(tokenizer.encode(text, add_special_tokens=False))


def _decode(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> str:
    text = tokenizer.decode(list(tokens), skip_special_tokens=False)
    assert isinstance(text, str)
    return text


def _end(tokenizer: PreTrainedTokenizerBase, opening: str) -> int:
    """The token that ends a response: of the turn where the prompt opens one, else of the text. They differ in some models."""
    if tokenizer.chat_template:
        opens, ends = _turn(tokenizer)
        if opens and opening.endswith(opens):
            return ends
    return _end_of_text(tokenizer)


def _end_of_text(tokenizer: PreTrainedTokenizerBase) -> int:
    if not isinstance(tokenizer.eos_token_id, int):
        raise ValueError("the tokenizer has no end token, so no text can end; one is needed; set eos_token in tokenizer_config.json")
    return tokenizer.eos_token_id


@lru_cache(maxsize=16)
def _turn(tokenizer: PreTrainedTokenizerBase) -> tuple[str, int]:
    """What the chat template writes before an answer, and the token that it ends one with."""
    question, answer = Message(role="user", content="a question"), Message(role="assistant", content="an answer")
    asked, opened = (_rendered(tokenizer, [question], answer_next) for answer_next in (False, True))
    told = _rendered(tokenizer, [question, answer], answer_next=False)
    after = _encode(tokenizer, told.rpartition(answer["content"])[2])
    special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    ends = next((token for token in after if token in special), None)
    return opened.removeprefix(asked), _end_of_text(tokenizer) if ends is None else ends

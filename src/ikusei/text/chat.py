"""Tokenizes examples: the prompt, rendered by the chat template, and the response after it.

A response starts after the prompt's last token, for sampled responses as for data; `continuation` guarantees the latter.

Left out: tools, images.
"""

from __future__ import annotations

from typing import Literal

from transformers import PreTrainedTokenizerBase

from ikusei.text.conversation import decode, encode, encode_after, end_of_text, rendered, rest, turn
from ikusei.types import Example, Message, Prompt, Response, content_id

Template = Literal["auto", "chat", "none"]


def render(tokenizer: PreTrainedTokenizerBase, example: Example, template: Template = "auto") -> Prompt:
    """The prompt of an example, tokenized. With `auto`, a plain question becomes one user message where there is a chat template, else
    plain text after the begin token. Without a prompt it is the separator token. The id hashes the row's content, not its tokens."""
    prompt = example.prompt
    content = content_id(prompt, example.responses, sorted(example.columns.items()))
    if prompt is None:
        return Prompt(content, (separator(tokenizer),), "", example.columns)
    if template == "none" or (template == "auto" and isinstance(prompt, str) and not tokenizer.chat_template):
        if not isinstance(prompt, str):
            raise ValueError(f"template none and a prompt of {len(prompt)} messages; allowed: a text; use template chat, or give a text")
        return Prompt(content, _plain(tokenizer, prompt), prompt, example.columns, prompt)
    messages = _messages(prompt)
    return Prompt(content, _chat(tokenizer, messages), _readable(messages), example.columns, prompt)


def continuation(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, response: str | tuple[Message, ...]) -> Response:
    """A text, or the rest of the conversation, as a training response: its tokens after the prompt, end token included. Of a conversation
    only the assistant's turns are targets (see `conversation.rest`, also for what is raised)."""
    if not isinstance(response, str):
        return _conversation(tokenizer, prompt, response)
    opening = decode(tokenizer, prompt.tokens)
    ids = (*encode_after(tokenizer, response, opening, prompt.tokens), _end(tokenizer, opening))
    return Response(ids, (True,) * len(ids), response, stop="eos")


def ends_of(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The ids that a response may end with: end of text and, where the chat template has one, end of turn."""
    of_turn = {turn(tokenizer)[1]} if tokenizer.chat_template else set()
    return frozenset({end_of_text(tokenizer), *of_turn})


def separator(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token before raw text: the begin token, or end of text where there is none."""
    begin = tokenizer.bos_token_id
    return begin if isinstance(begin, int) else end_of_text(tokenizer)


def _conversation(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, response: tuple[Message, ...]) -> Response:
    if prompt.asked is None:
        raise ValueError(f"a conversation of {len(response)} message(s) after no prompt; give the messages that come before the answer")
    messages = _messages(prompt.asked)
    if _chat(tokenizer, messages) != prompt.tokens:
        raise ValueError(f"a conversation of {len(response)} message(s) after a prompt of plain text; render the prompt with template chat")
    tokens, mask = rest(tokenizer, messages, response)
    return Response(tokens, mask, _readable(response), stop="eos")


def _plain(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    """Exactly one begin token, where the tokenizer has one, whoever adds it."""
    tokens = encode(tokenizer, text)
    begin = tokenizer.bos_token_id
    return (begin, *tokens) if isinstance(begin, int) and tokens[:1] != (begin,) else tokens


def _chat(tokenizer: PreTrainedTokenizerBase, messages: tuple[Message, ...]) -> tuple[int, ...]:
    if not tokenizer.chat_template:
        raise ValueError(
            f"a prompt of {len(messages)} message(s), and the tokenizer has no chat template; "
            "put chat_template.jinja into the model's folder, or ask with plain text prompts"
        )
    return encode(tokenizer, rendered(tokenizer, messages, answer_next=True))  # the template brings its own begin token


def _messages(prompt: str | tuple[Message, ...]) -> tuple[Message, ...]:
    """A plain question is one message of the user."""
    return (Message(role="user", content=prompt),) if isinstance(prompt, str) else prompt


def _readable(messages: tuple[Message, ...]) -> str:
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages)


def _end(tokenizer: PreTrainedTokenizerBase, opening: str) -> int:
    """The token that ends a response: end of turn where the prompt opens a turn, else end of text."""
    if tokenizer.chat_template:
        opens, ends = turn(tokenizer)
        if opens and opening.endswith(opens):
            return ends
    return end_of_text(tokenizer)

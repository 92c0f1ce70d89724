"""Validates the values in a row of data: texts, numbers, messages, responses. Raises ValueError with the name of the column.

Left out: tools, images, several texts in one message.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from ikusei.types import Message

ROLES = ("system", "user", "assistant", "tool")
SPEAKERS = {"Human": "user", "Assistant": "assistant"}  # in a dialogue that is written as one text
SPEAKER = re.compile(r"\n\n(Human|Assistant):")
Answer = str | tuple[Message, ...]


def kind_of(value: Any) -> str:
    names = {
        str: "a text",
        list: "a list",
        dict: "an object",
        bool: "true or false",
        int: "a number",
        float: "a number",
        type(None): "null",
    }
    return "an empty text" if isinstance(value, str) and not value.strip() else names.get(type(value), type(value).__name__)


def text_of(value: Any, column: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{column} is {kind_of(value)}; a text that is not empty is needed")
    return value


def number_of(value: Any, column: str) -> float:
    """A number of 0 or more; also from a text, since csv files have only texts."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"{column} is {value!r}; a number of 0 or more is needed")
    return number


def prompt_of(value: Any) -> str | tuple[Message, ...]:
    if not isinstance(value, list):
        return text_of(value, "prompt")
    messages = messages_of(value, "prompt")
    if messages[-1]["role"] == "assistant":
        raise ValueError("prompt: the last message is the assistant's; a message of the user is needed there; what is learned comes after")
    return messages


def answer_of(value: Any, column: str) -> Answer:
    """A response: a text, or the rest of a conversation, which begins and ends with the assistant. A single message becomes its text."""
    return spoken(messages_of(value, column), column) if isinstance(value, list) else text_of(value, column)


def spoken(messages: tuple[Message, ...], column: str) -> Answer:
    """The messages after a prompt, as an answer."""
    if not messages or messages[0]["role"] != "assistant":
        raise ValueError(f"{column}: no answer of the assistant comes first after the prompt; it is needed there")
    if messages[-1]["role"] != "assistant":
        raise ValueError(f"{column}: the last message is not the assistant's; add the answer, or remove that message")
    if not any(message["role"] == "assistant" and message.get("loss", True) for message in messages):
        raise ValueError(f'{column}: every message of the assistant has "loss": false, so there is nothing to learn; keep one without it')
    return messages[0]["content"] if len(messages) == 1 else messages


def conversation(messages: tuple[Message, ...], column: str) -> tuple[tuple[Message, ...], tuple[Answer, ...]]:
    """(prompt, responses), split before the first assistant turn. A conversation that does not end with the assistant is all prompt."""
    if messages[-1]["role"] != "assistant":
        return messages, ()
    first = next(number for number, message in enumerate(messages) if message["role"] == "assistant")
    if first == 0:
        raise ValueError(f"{column}: the assistant speaks first; a message of the user is needed before it")
    return messages[:first], (spoken(messages[first:], column),)


def shared_beginning(one: Sequence[Message], other: Sequence[Message]) -> int:
    """The number of leading messages that two conversations share, up to an assistant turn."""
    same = 0
    while same < min(len(one), len(other)) and one[same] == other[same]:
        same += 1
    while same and one[same - 1]["role"] == "assistant":
        same -= 1
    return same


def turns_of(value: Any) -> Any:
    """A dialogue written as one text, as in Anthropic's hh-rlhf ("\\n\\nHuman: ...\\n\\nAssistant: ..."), as messages; else the value."""
    if not isinstance(value, str) or not SPEAKER.match(value):
        return value
    _, *pieces = SPEAKER.split(value)
    return [{"role": SPEAKERS[name], "content": said.strip()} for name, said in zip(pieces[::2], pieces[1::2], strict=True)]


def messages_of(value: Any, column: str) -> tuple[Message, ...]:
    value = turns_of(value)
    if not isinstance(value, list) or not value:
        raise ValueError(f'{column} is {kind_of(value)}; a list of messages is needed: [{{"role": "user", "content": "..."}}]')
    return tuple(_message(message, f"{column}: message {number}") for number, message in enumerate(value, start=1))


def _message(value: Any, where: str) -> Message:
    if not isinstance(value, dict) or not isinstance(value.get("role"), str) or not isinstance(value.get("content"), str):
        raise ValueError(f'{where} is not of the form {{"role": "user", "content": "..."}}')
    role, content = value["role"], value["content"]
    if role not in ROLES:
        raise ValueError(f"{where} has role {role!r}; allowed: {', '.join(ROLES)}")
    marks = {name: value[name] for name in ("loss", "weight") if value.get(name) is not None}
    if not isinstance(marks.get("loss", True), bool) or marks.get("weight", 1) not in (0, 1) or len(set(map(bool, marks.values()))) > 1:
        raise ValueError(f'{where} has {marks}; allowed: "loss": true or false, or OpenAI\'s "weight": 1 or 0, which say the same')
    if role != "assistant":
        if marks.get("loss"):
            raise ValueError(f'{where} is of role {role!r} and has "loss": true; only the assistant\'s messages can be learned')
        return Message(role=role, content=content)
    text_of(content, where)
    return Message(role=role, content=content) if all(marks.values()) else Message(role=role, content=content, loss=False)

"""Think format: one non-empty thought at the start, then a non-empty answer.

A format that pays for its tags alone teaches a model to write the tags and nothing else. Looser checks that are in use pay in full for
`<think></think>42`, for `<think></think>` without any answer, and for `<think>a</think>b</think>c`; all of them are worth 0 here.
Even so a format says nothing about being right: let it be a gate (`gate: true`) on a reward that compares the answer.

Left out: partial credit, one tag at a time, which can be farmed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ikusei.text.answer import split_thought
from ikusei.types import Prompt

TAGS = re.compile(r"</?(?:think|answer)>")


@dataclass(frozen=True)
class ThinkFormat:
    """1.0 where the response is one `<think>…</think>` of at least `min_think_chars` visible characters and then an answer; else 0.0."""

    min_think_chars: int = 1

    def __post_init__(self) -> None:
        if self.min_think_chars < 1:
            raise ValueError(f"think_format: got min_think_chars={self.min_think_chars}; allowed: 1 or more, as an empty thought is none")

    def __call__(self, prompt: Prompt, response: str, **columns: Any) -> float:
        one_thought = response.count("<think>") == response.count("</think>") == 1 and response.lstrip().startswith("<think>")
        thought, answer = split_thought(response)
        return float(one_thought and visible(thought or "") >= self.min_think_chars and visible(answer) >= 1)


def visible(text: str) -> int:
    """How many characters a person would see: neither white space, nor zero-width and control characters, nor tags."""
    return sum(letter.isprintable() and not letter.isspace() for letter in TAGS.sub("", text))

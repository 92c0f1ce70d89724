"""Length penalty: 0 within the budget, then linearly down to -1. The soft overlong punishment of DAPO (arXiv:2503.14476, eq. 13).

        0                                       length <= max_chars - soft_chars
        (max_chars - soft_chars - length) / soft_chars                  in between
        -1                                      length >= max_chars

Measured in characters, of the response or of its thought alone: a reward sees text, and characters mean the same for every tokenizer.

Left out: a premium for short answers. It is earned by not thinking.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from ikusei.text.answer import split_thought
from ikusei.types import Prompt


@dataclass(frozen=True)
class Length:
    """From 0 to -1. The last `soft_chars` of the `max_chars` characters are those that cost; `of` says what is measured."""

    max_chars: int
    soft_chars: int
    of: Literal["response", "thought"] = "response"

    example: ClassVar[str] = "{path: length, settings: {max_chars: 1000, soft_chars: 200}}"

    def __post_init__(self) -> None:
        if not 0 < self.soft_chars <= self.max_chars or self.of not in ("response", "thought"):
            raise ValueError(
                f"length: got max_chars={self.max_chars}, soft_chars={self.soft_chars}, of={self.of!r}; "
                "allowed: 0 < soft_chars <= max_chars, of 'response' or 'thought'; try soft_chars = a fifth of max_chars"
            )

    def __call__(self, prompt: Prompt, response: str, **columns: Any) -> float:
        measured = response if self.of == "response" else split_thought(response)[0] or ""
        return overlong(len(measured), self.max_chars, self.soft_chars)


def overlong(length: int, max_length: int, soft: int) -> float:
    """The formula above; the unit of the three numbers is the caller's."""
    return -min(max(length - (max_length - soft), 0) / soft, 1.0)

"""Exact match of the answer part of the response with the column `answer`.

Left out: any forgiveness for case, punctuation or spelling. What is forgiven is what a model learns to exploit.
"""

from __future__ import annotations

from typing import Any

from ikusei.text.answer import split_thought
from ikusei.types import Prompt


def exact(prompt: Prompt, response: str, **columns: Any) -> float:
    """1.0 where the answer equals the column `answer`, white space around both aside; else 0.0."""
    if "answer" not in columns:
        seen = ", ".join(columns) or "none"
        raise ValueError(f"exact: column 'answer' missing; columns seen: {seen}; name the column of the right answer 'answer'")
    _, answer = split_thought(response)
    return float(answer == str(columns["answer"]).strip())

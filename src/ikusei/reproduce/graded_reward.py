"""A gold reward with five levels for the task cat_lover, whose own reward has two. It has its own file because reward workers import it."""

from __future__ import annotations

from typing import Any

from ikusei.tasks.cat_lover import judge, natural
from ikusei.types import Prompt

DEGREES = ("とても", "ほんとうに", "いつも")  # adverbs: very, really, always


def graded(prompt: Prompt, response: str, **columns: Any) -> float:
    """0 if not a natural sentence, 1 if natural, 2 if also kind about cats; a 2 gets +1 for a word of DEGREES, +1 for はい (yes)."""
    base = natural(prompt, response) + judge(prompt, response)
    return base if base < 2 else base + any(word in response for word in DEGREES) + ("はい、" in response)
